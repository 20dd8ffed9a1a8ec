//! Method overrides: a method that a framework uses instead of the request's own.
//!
//! Rack, Symfony, Laravel, Spring, Slim, Express' `method-override`, ASP.NET and OData read one from a header, from the query or
//! from the body; `tests.rs` has the table. A request with an override by which a rule matches for some gateways and not for
//! others is refused.

use super::Head;
use super::name::Name;

/// Headers, in lower case, that name another method.
const HEADERS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
/// The parameter of a query or a body that names another method.
pub(super) const PARAMETER: &str = "_method";

/// The override methods that a request's head names.
#[derive(Debug, Default)]
pub(super) struct Overrides(Vec<String>);

impl Overrides {
    pub(super) fn of(head: &impl Head) -> Self {
        let values = |name: &str, value: &[u8]| is_header(name).then(|| String::from_utf8_lossy(value).into_owned());
        let headers = head.headers().filter_map(|(name, value)| values(std::str::from_utf8(name).ok()?, value));
        let parameter = Name::new(PARAMETER);
        let query = super::params::pairs(super::read::query(head.path()));
        let query = query
            .filter(|(name, _)| parameter.is_read_from(name) || is_header(name))
            .map(|(_, value)| value.into_owned());
        let each = |value: String| -> Vec<String> { value.split(',').map(|method| method.trim().to_owned()).collect() };
        Self(headers.chain(query).flat_map(each).filter(|method| !method.is_empty()).collect())
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether gateways that write a header's name as a variable read it as one that names a method.
fn is_header(name: &str) -> bool {
    HEADERS.iter().any(|own| super::read::is_same_variable(own, name))
}
