//! Who asks, as the token said; handlers take it as an argument and ask it what is allowed.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quota::{ActorId, MerchantId};

use super::role::{Permission, Permissions, Role};
use crate::admin::problem::{Answer, Kind, Problem};

/// What the caller showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A signed token.
    Jwt,
    /// An access token of ours.
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
    /// What the caller showed.
    pub via: Via,
}

impl Caller {
    /// Goes on only if the caller has the permission.
    ///
    /// # Errors
    /// A 403 problem that names the permission.
    pub fn require(&self, permission: Permission) -> Answer<()> {
        if self.scopes.has(permission) {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden).detail(format!("the caller lacks {}", permission.as_str())))
    }

    /// Goes on only if the merchant's data are the caller's to see.
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

    /// The merchant that a list is narrowed to: the one asked for, if the caller may see it, else the caller's own.
    ///
    /// # Errors
    /// As [`Caller::may_see`].
    pub fn narrow(&self, asked: Option<MerchantId>) -> Answer<Option<MerchantId>> {
        match asked {
            Some(merchant) => self.may_see(&merchant).map(|()| Some(merchant)),
            None => Ok(self.merchant.clone()),
        }
    }

    /// Goes on only if the caller sees all merchants: for what belongs to none of them.
    ///
    /// # Errors
    /// A 403 problem.
    pub fn require_all_merchants(&self) -> Answer<()> {
        match &self.merchant {
            Some(_) => Err(Problem::new(Kind::Forbidden).detail("the caller may see its own merchant only")),
            None => Ok(()),
        }
    }

    /// The usage log's word for the kind of actor: `admin` for a person, `api` for a program.
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

    /// The caller that the layer around the API put there; without it nobody is let in.
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
