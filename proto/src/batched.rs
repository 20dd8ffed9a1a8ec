//! The checks of a call with many, as they are received: their texts stay where the call's message is. On the wire it is the message
//! [`crate::envoy::CheckRequest`], whose map would take two allocations and a hash for each of its entries.

use bytes::Bytes;

use crate::envoy;

/// A check.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// What is checked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttributeContext {
    /// In the order of the wire; the last entry of a key counts, as in a map.
    #[prost(message, repeated, tag = "10")]
    pub context_extensions: Vec<Extension>,
}

/// An entry of the map, in UTF-8 if the sender keeps to the contract.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Extension {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl From<envoy::CheckRequest> for CheckRequest {
    fn from(check: envoy::CheckRequest) -> Self {
        let extension = |(key, value): (String, String)| Extension { key: key.into(), value: value.into() };
        let attributes = check.attributes.map(|attributes| AttributeContext {
            context_extensions: attributes.context_extensions.into_iter().map(extension).collect(),
        });
        Self { attributes }
    }
}

impl From<CheckRequest> for envoy::CheckRequest {
    /// What is no UTF-8 gets replacement characters.
    fn from(check: CheckRequest) -> Self {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let attributes = check.attributes.map(|attributes| {
            let entries = attributes.context_extensions.into_iter();
            let context_extensions = entries.map(|entry| (text(entry.key), text(entry.value))).collect();
            envoy::AttributeContext { context_extensions }
        });
        Self { attributes }
    }
}
