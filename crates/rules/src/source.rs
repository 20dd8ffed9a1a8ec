//! The sources of fields in a request.

/// One place in a request where a field may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A request header, by its lower-case name.
    Header(String),
    /// A capture of the rule's path template.
    Path(String),
    /// A query parameter, and the index of its name among those of the rule's query.
    Query { name: String, slot: usize },
    /// A JSON pointer (RFC 6901) into the body, and the index of its leaf among the rule's pointers.
    Json { pointer: String, slot: usize },
    /// A field of an `application/x-www-form-urlencoded` body, and the index of its name among those of the rule's form.
    Form { name: String, slot: usize },
    /// A string in Envoy's dynamic metadata: namespace, then keys.
    Metadata(Vec<String>),
    /// The same value for every request.
    Constant(String),
}

impl Source {
    /// The source's name in a refusal. Configuration only, nothing of the request.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Header(name) => format!("header {name}"),
            Self::Path(name) => format!("path {{{name}}}"),
            Self::Query { name, .. } => format!("query {name}"),
            Self::Json { pointer, .. } => format!("json {pointer}"),
            Self::Form { name, .. } => format!("form {name}"),
            Self::Metadata(path) => format!("metadata {}", path.join(".")),
            Self::Constant(text) => format!("constant {text}"),
        }
    }

    pub(super) const fn is_body(&self) -> bool {
        matches!(self, Self::Json { .. } | Self::Form { .. })
    }
}
