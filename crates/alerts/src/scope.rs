//! Whose alert settings.

use quota::MerchantId;

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Operators,
    Merchant(MerchantId),
}

impl Scope {
    /// As in the column `scope`: `operators`, or `merchant:` and the id.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Operators => "operators".to_owned(),
            Self::Merchant(merchant) => format!("merchant:{}", merchant.as_str()),
        }
    }

    /// Reads [`Scope::text`] back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("merchant:") {
            Some(merchant) => MerchantId::parse(merchant).ok().map(Self::Merchant),
            None => (text == "operators").then_some(Self::Operators),
        }
    }
}
