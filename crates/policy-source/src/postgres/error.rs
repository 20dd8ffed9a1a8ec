//! A policy's problems under the names that its fields have in the API.

use sluice_kit::database::change::ChangeError;
use sluice_policy::PolicyError;

/// A policy's problem as a refused change.
pub(crate) fn of_policy(error: PolicyError) -> ChangeError {
    match error {
        PolicyError::Field { field, problem } => {
            let throttle = field.strip_prefix("breach.throttle.").map(|name| format!("throttle_{name}"));
            let nested = throttle.or_else(|| field.strip_prefix("trust.").map(|name| format!("trust_{name}")));
            ChangeError::Invalid { field: nested.unwrap_or_else(|| api_name(&field)), problem }
        }
        PolicyError::EnforcesNothing => ChangeError::Conflict(
            "the set in force after it enforces nothing: it names no limit that payments count against".to_owned(),
        ),
        // Rows are not parsed from a text.
        error @ (PolicyError::Syntax(_) | PolicyError::Tab(_)) => ChangeError::Conflict(error.to_string()),
    }
}

/// A field of the policy document under the name that it has in the API.
fn api_name(field: &str) -> String {
    let (path, name) = field.rsplit_once('.').filter(|(path, _)| *path != "hold").unwrap_or(("", field));
    let name = match name {
        "single_min" => "single_trans_min",
        "single_max" => "single_trans_max",
        "hold.lifetime_secs" => "hold_lifetime_secs",
        "hold.on_expiry" => "hold_on_expiry",
        "effective_from" => "effective_date",
        "effective_until" => "expiry_date",
        name => match quota::LimitName::parse(name) {
            Some(limit) => limit.column(),
            None => name,
        },
    };
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
