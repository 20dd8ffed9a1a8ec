//! Fields of a payment that is refused because it cannot be read: for logs, never for a decision. The first valid value of a
//! field is used, regardless of the rest, so that an order can be found by its number.

use super::json::Scalar;
use super::params::pairs;
use super::read::{Draft, Head, head_value};
use super::{Captures, Field, Rule, Source};
use quota::{AmountMinor, Currency, MerchantId, OrderNo};

/// The known fields of a payment that was not read. Each is valid by itself: bounded, visible ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub merchant: Option<MerchantId>,
    pub order_no: Option<OrderNo>,
    pub currency: Option<Currency>,
    /// Only where the currency is known too.
    pub amount: Option<AmountMinor>,
}

impl Rule {
    /// The fields in the head of a refused request.
    #[must_use]
    pub fn salvage(&self, head: &impl Head, captures: &Captures) -> Salvaged {
        let query = self.names.query.read(head.query()).unwrap_or_default();
        self.salvaged(|_, source| head_value(head, captures, &query, source).unwrap_or_default())
    }

    fn salvaged(&self, read: impl Fn(usize, &Source) -> Option<String>) -> Salvaged {
        let texts = |wanted: Field| {
            let own = self.field(wanted).into_iter().flat_map(|(start, sources)| (start..).zip(sources));
            own.filter_map(|(at, source)| read(at, source))
        };
        let currency = texts(Field::Currency).find_map(|text| Currency::parse(&text).ok());
        let amount = |currency| {
            texts(Field::Amount).find_map(|text| AmountMinor::parse(&text, self.unit, currency, self.allow_zero).ok())
        };
        Salvaged {
            merchant: texts(Field::Merchant).find_map(|text| MerchantId::parse(&text).ok()),
            order_no: texts(Field::OrderNo).find_map(|text| OrderNo::parse(&text).ok()),
            currency,
            amount: currency.and_then(amount),
        }
    }
}

impl Draft {
    /// The fields of a refused request with its body. `rule` is the one that created the draft.
    #[must_use]
    pub fn salvage(&self, rule: &Rule, body: &[u8]) -> Salvaged {
        rule.salvaged(|at, source| match (self.value(at), source) {
            (Some(Scalar::Text(text)), _) => Some(text.clone().into_owned()),
            (_, Source::Json { pointer, .. }) => member(body, pointer.rsplit('/').next().unwrap_or_default()),
            (_, Source::Form { name, .. }) => {
                pairs(body).find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
            }
            (_, _) => None,
        })
    }
}

/// The value after the first occurrence of a key in a text that need not be JSON: a string without escapes, or a number.
fn member(body: &[u8], key: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok().or_else(|| {
        let valid = body.utf8_chunks().next()?;
        Some(valid.valid())
    })?;
    let quoted = format!("\"{key}\"");
    text.match_indices(&quoted).find_map(|(at, _)| {
        let rest = text.get(at.saturating_add(quoted.len())..)?.trim_start().strip_prefix(':')?.trim_start();
        match rest.strip_prefix('"') {
            Some(rest) => rest.split_once('"').map(|(value, _)| value).filter(|value| !value.contains('\\')),
            None => Some(rest.split([',', '}', ']', ' ', '\r', '\n', '\t']).next().unwrap_or_default()),
        }
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_in_what_is_no_document() {
        let table = [
            (r#"{"order_no": "o-1", "amount": 5}"#, Some("o-1")),
            (r#"{"amount": 5, "order_no":"o-1", "order_no":"o-2"}"#, Some("o-1")),
            (r#"{"a": {"order_no": 17}}"#, Some("17")),
            (r#"{"order_no" : "o-1", "amount": "#, Some("o-1")),
            (r#"{"order_no": "o-1"#, None),
            (r#"{"order_no": "a\"b"}"#, None),
            (r#"{"orderno": "o-1"}"#, None),
            (r#"["order_no", {"order_no": "o-1"}]"#, Some("o-1")),
            ("", None),
        ];
        for (body, expected) in table {
            assert_eq!(member(body.as_bytes(), "order_no").as_deref(), expected, "{body}");
        }
        assert_eq!(member(b"{\"order_no\": \"o-1\", \"x\": \"\xff\"}", "order_no").as_deref(), Some("o-1"));
    }
}
