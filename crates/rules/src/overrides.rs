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
        let is_own = |name: &[u8]| is_header(name) && std::str::from_utf8(name).is_ok();
        let headers = head.headers().filter(|(name, _)| is_own(name));
        let headers = headers.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let query = super::read::query(head.path());
        let parameter = if query.is_empty() { None } else { Some(Name::new(PARAMETER)) };
        let is_parameter = |name: &str| parameter.as_ref().is_some_and(|parameter| parameter.is_read_from(name));
        let query = super::params::pairs(query)
            .filter(|(name, _)| is_parameter(name) || is_header(name.as_bytes()))
            .map(|(_, value)| value.into_owned());
        let each = |value: String| -> Vec<String> { value.split(',').map(|method| method.trim().to_owned()).collect() };
        Self(headers.chain(query).flat_map(each).filter(|method| !method.is_empty()).collect())
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether gateways that write a header's name as a variable read it as one that names a method.
fn is_header(name: &[u8]) -> bool {
    HEADERS.iter().any(|own| super::read::is_same_variable(own, name))
}
