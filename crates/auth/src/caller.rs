//! The caller, from its token; handlers take it as an argument and check its permissions.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quota::{ActorId, MerchantId};

use super::role::{Permission, Permissions, Role};
use crate::problem::{Answer, Kind, Problem};

/// The kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A signed token.
    Jwt,
    /// An access token made by this API.
    Token,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The actor of every change: the signed token's subject, or `token:<id>`.
    pub subject: ActorId,
    /// Known roles, at least one.
    pub roles: Vec<Role>,
    /// The only merchant whose data the caller sees; `None` for all merchants.
    pub merchant: Option<MerchantId>,
    /// What the caller may do: what the roles grant, narrowed by the token's own scopes.
    pub scopes: Permissions,
    /// The kind of credentials.
    pub via: Via,
    /// When the credentials expire, milliseconds since the epoch; `None` where only a revocation ends them.
    pub expires_at_ms: Option<i64>,
}

impl Caller {
    /// Checks that the caller has the permission.
    ///
    /// # Errors
    /// A 403 problem that names the permission.
    pub fn require(&self, permission: Permission) -> Answer<()> {
        if self.scopes.has(permission) {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden).detail(format!("the caller lacks {}", permission.into_str())))
    }

    /// Checks that the caller may see the merchant's data.
    ///
    /// # Errors
    /// A 403 problem, the same whether there is such a merchant or not.
    pub fn may_see(&self, merchant: &MerchantId) -> Answer<()> {
        match &self.merchant {
            Some(own) if own != merchant => {
                Err(Problem::new(Kind::Forbidden).detail("the caller may see its own merchant only"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The merchant that a list is narrowed to: the requested one, if the caller may see it, else the caller's own.
    ///
    /// # Errors
    /// As [`Caller::may_see`].
    pub fn narrow(&self, requested: Option<MerchantId>) -> Answer<Option<MerchantId>> {
        match requested {
            Some(merchant) => self.may_see(&merchant).map(|()| Some(merchant)),
            None => Ok(self.merchant.clone()),
        }
    }

    /// Checks that the caller sees all merchants: for data of no single merchant.
    ///
    /// # Errors
    /// A 403 problem.
    pub fn require_all_merchants(&self) -> Answer<()> {
        match &self.merchant {
            Some(_) => Err(Problem::new(Kind::Forbidden).detail("the caller may see its own merchant only")),
            None => Ok(()),
        }
    }

    /// The kind of actor in the usage log: `admin` for a person, `api` for a program.
    #[must_use]
    pub const fn operator_type(&self) -> &'static str {
        match self.via {
            Via::Jwt => "admin",
            Via::Token => "api",
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    /// The caller that the authentication middleware set; without it the request is refused.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::new(Kind::Unauthenticated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, merchant: Option<&str>) -> Caller {
        Caller {
            subject: ActorId::parse("a").unwrap(),
            roles: vec![role],
            merchant: merchant.map(|id| MerchantId::parse(id).unwrap()),
            scopes: role.permissions(),
            via: Via::Jwt,
            expires_at_ms: None,
        }
    }

    #[test]
    fn a_caller_of_one_merchant_sees_no_other() {
        let (own, other) = (MerchantId::parse("m-1").unwrap(), MerchantId::parse("m-2").unwrap());
        for role in [Role::Merchant, Role::Operator, Role::Admin] {
            let caller = caller(role, Some("m-1"));
            assert!(caller.may_see(&own).is_ok());
            assert_eq!(caller.may_see(&other).unwrap_err().status(), 403);
            assert_eq!(caller.narrow(None).unwrap(), Some(own.clone()));
            assert!(caller.narrow(Some(other.clone())).is_err());
            assert!(caller.require_all_merchants().is_err());
        }
        let all = caller(Role::Operator, None);
        assert!(all.may_see(&other).is_ok() && all.require_all_merchants().is_ok());
        assert_eq!(all.narrow(None).unwrap(), None);
        assert_eq!(all.narrow(Some(own.clone())).unwrap(), Some(own));
    }

    #[test]
    fn a_permission_that_is_lacking_is_named() {
        let problem = caller(Role::Operator, None).require(Permission::TokensManage).unwrap_err();
        assert!(serde_json::to_string(&problem).unwrap().contains("tokens:manage"));
        assert!(caller(Role::Admin, None).require(Permission::TokensManage).is_ok());
    }
}
