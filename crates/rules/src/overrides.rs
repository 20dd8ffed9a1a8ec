//! Method overrides: a method that a framework uses instead of the request's own.
//!
//! Rack, Symfony, Laravel, Spring, Slim, Express' `method-override`, ASP.NET and OData read one from a header, from the query or
//! from the body; `tests.rs` has the table. A request with an override by which a rule matches for some gateways and not for
//! others is refused.

use super::name::Name;
use super::{Head, length_bit};

/// Headers, in lower case, that name another method.
const HEADERS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
/// The lengths of their names.
const LENGTHS: u64 = {
    let [first, second, third] = HEADERS;
    length_bit(first.len()) | length_bit(second.len()) | length_bit(third.len())
};
/// The parameter of a query or a body that names another method.
pub(super) const PARAMETER: &str = "_method";

/// The override methods that a request's head names.
#[derive(Debug, Default)]
pub(super) struct Overrides(Vec<String>);

impl Overrides {
    pub(super) fn of(head: &impl Head) -> Self {
        let query = head.query();
        if query.is_empty() && !HEADERS.iter().any(|own| head.may_have(own.len())) {
            return Self::default();
        }
        let mut methods = Vec::new();
        for (name, value) in head.headers() {
            if LENGTHS & length_bit(name.len()) != 0 && is_header(name) && std::str::from_utf8(name).is_ok() {
                add(&mut methods, &String::from_utf8_lossy(value));
            }
        }
        if !query.is_empty() {
            let parameter = Name::new(PARAMETER);
            let is_own = |name: &str| parameter.is_read_from(name) || is_header(name.as_bytes());
            let own = super::params::pairs(query).filter(|(name, _)| is_own(name));
            own.for_each(|(_, value)| add(&mut methods, &value));
        }
        Self(methods)
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Adds the methods of a list.
fn add(methods: &mut Vec<String>, list: &str) {
    methods.extend(list.split(',').map(str::trim).filter(|method| !method.is_empty()).map(str::to_owned));
}

/// Whether gateways that write a header's name as a variable read it as one that names a method.
fn is_header(name: &[u8]) -> bool {
    HEADERS.iter().any(|own| super::read::is_same_variable(own, name))
}
