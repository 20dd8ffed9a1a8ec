//! Who may do what: roles, the permissions that each grants, and sets of permissions.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// What a caller is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
)]
#[strum(const_into_str, serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Operations on quota, alerts, and reading everything but tokens.
    Operator,
    /// Reads and checks of one merchant's own data, who is notified of its alerts, and its own access tokens.
    Merchant,
}

impl Role {
    /// What the role may do.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        Permission::VARIANTS.iter().copied().filter(|permission| permission.granted_to(self)).collect()
    }
}

/// One thing that a caller may do. The text form is a token's scope.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(const_into_str)]
#[repr(u32)]
pub enum Permission {
    /// Read accounts, usage logs and their figures.
    #[serde(rename = "quotas:read")]
    #[strum(serialize = "quotas:read")]
    QuotasRead = 1,
    /// Ask what would fit, without consuming.
    #[serde(rename = "quotas:check")]
    #[strum(serialize = "quotas:check")]
    QuotasCheck = 1 << 1,
    /// Consume, hold, settle, void, extend a hold, release, refund, and all of these in batches.
    #[serde(rename = "quotas:operate")]
    #[strum(serialize = "quotas:operate")]
    QuotasOperate = 1 << 2,
    /// Adjust, reset, suspend, resume, initialise.
    #[serde(rename = "quotas:manage")]
    #[strum(serialize = "quotas:manage")]
    QuotasManage = 1 << 3,
    /// Read limit policies, tiers and history.
    #[serde(rename = "policies:read")]
    #[strum(serialize = "policies:read")]
    PoliciesRead = 1 << 4,
    /// Draft and change limit policies, tiers, bindings and overrides.
    #[serde(rename = "policies:write")]
    #[strum(serialize = "policies:write")]
    PoliciesWrite = 1 << 5,
    /// Approve and activate what another person drafted.
    #[serde(rename = "policies:approve")]
    #[strum(serialize = "policies:approve")]
    PoliciesApprove = 1 << 6,
    /// Read settings and their history; secrets are never shown.
    #[serde(rename = "settings:read")]
    #[strum(serialize = "settings:read")]
    SettingsRead = 1 << 7,
    /// Change settings at run time.
    #[serde(rename = "settings:write")]
    #[strum(serialize = "settings:write")]
    SettingsWrite = 1 << 8,
    /// Create, list, rotate and revoke access tokens.
    #[serde(rename = "tokens:manage")]
    #[strum(serialize = "tokens:manage")]
    TokensManage = 1 << 9,
    /// Read alerts and their messages; settings of alerts without their secrets.
    #[serde(rename = "alerts:read")]
    #[strum(serialize = "alerts:read")]
    AlertsRead = 1 << 10,
    /// Acknowledge and resolve alerts.
    #[serde(rename = "alerts:manage")]
    #[strum(serialize = "alerts:manage")]
    AlertsManage = 1 << 11,
    /// Set who is notified of which alerts, send tests, and send messages again.
    #[serde(rename = "alerts:configure")]
    #[strum(serialize = "alerts:configure")]
    AlertsConfigure = 1 << 12,
    /// Read credit lines, their statements, repayments, grades and dunning.
    #[serde(rename = "credit:read")]
    #[strum(serialize = "credit:read")]
    CreditRead = 1 << 13,
    /// Record repayments, their reversals, recoveries and transfers.
    #[serde(rename = "credit:post")]
    #[strum(serialize = "credit:post")]
    CreditPost = 1 << 14,
    /// Draft and change credit lines, and ask for other grades.
    #[serde(rename = "credit:write")]
    #[strum(serialize = "credit:write")]
    CreditWrite = 1 << 15,
    /// Approve, activate and close credit lines, approve grades, accept promises to pay, write off.
    #[serde(rename = "credit:approve")]
    #[strum(serialize = "credit:approve")]
    CreditApprove = 1 << 16,
    /// Make, list and revoke access tokens of the caller's own merchant, with no more permissions than its own.
    #[serde(rename = "tokens:own")]
    #[strum(serialize = "tokens:own")]
    TokensOwn = 1 << 17,
}

impl Permission {
    /// Whether an access token may hold it. Drafting and approving are for persons: the maker of two tokens could otherwise draft
    /// with one and approve with the other, and act as two persons. And a leaked token must not make others that outlive its
    /// revocation.
    #[must_use]
    pub const fn for_tokens(self) -> bool {
        !matches!(
            self,
            Self::PoliciesWrite
                | Self::PoliciesApprove
                | Self::TokensManage
                | Self::TokensOwn
                | Self::CreditWrite
                | Self::CreditApprove
        )
    }

    /// The one table of permissions by role.
    const fn granted_to(self, role: Role) -> bool {
        match role {
            Role::Admin => true,
            Role::Operator => match self {
                Self::QuotasRead
                | Self::QuotasCheck
                | Self::QuotasOperate
                | Self::QuotasManage
                | Self::PoliciesRead
                | Self::PoliciesWrite
                | Self::SettingsRead
                | Self::AlertsRead
                | Self::AlertsManage
                | Self::AlertsConfigure
                | Self::CreditRead
                | Self::CreditPost
                | Self::CreditWrite => true,
                Self::PoliciesApprove
                | Self::SettingsWrite
                | Self::TokensManage
                | Self::TokensOwn
                | Self::CreditApprove => false,
            },
            Role::Merchant => {
                matches!(
                    self,
                    Self::QuotasRead
                        | Self::QuotasCheck
                        | Self::PoliciesRead
                        | Self::AlertsRead
                        | Self::AlertsConfigure
                        | Self::CreditRead
                        | Self::TokensOwn
                )
            }
        }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// Whether the permission is among them.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & permission as u32 != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other ones are among them.
    #[must_use]
    pub const fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::VARIANTS.iter().copied().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::default(), |set, permission| Self(set.0 | permission as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grant_what_they_say() {
        let table = [
            (Permission::QuotasRead, [true, true, true]),
            (Permission::QuotasCheck, [true, true, true]),
            (Permission::QuotasOperate, [true, true, false]),
            (Permission::QuotasManage, [true, true, false]),
            (Permission::PoliciesRead, [true, true, true]),
            (Permission::PoliciesWrite, [true, true, false]),
            (Permission::PoliciesApprove, [true, false, false]),
            (Permission::SettingsRead, [true, true, false]),
            (Permission::SettingsWrite, [true, false, false]),
            (Permission::TokensManage, [true, false, false]),
            (Permission::AlertsRead, [true, true, true]),
            (Permission::AlertsManage, [true, true, false]),
            (Permission::AlertsConfigure, [true, true, true]),
            (Permission::CreditRead, [true, true, true]),
            (Permission::CreditPost, [true, true, false]),
            (Permission::CreditWrite, [true, true, false]),
            (Permission::CreditApprove, [true, false, false]),
            (Permission::TokensOwn, [true, false, true]),
        ];
        assert_eq!(table.len(), Permission::VARIANTS.len());
        for (permission, granted) in table {
            let roles = [Role::Admin, Role::Operator, Role::Merchant];
            assert_eq!(roles.map(|role| role.permissions().has(permission)), granted, "{}", permission.into_str());
        }
    }

    #[test]
    fn words_are_read_back() {
        for permission in Permission::VARIANTS.iter().copied() {
            assert_eq!(permission.into_str().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.into_str());
        }
        for role in [Role::Admin, Role::Operator, Role::Merchant] {
            assert_eq!(role.into_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.into_str());
        }
        assert_eq!(("root".parse::<Role>().ok(), "*".parse::<Permission>().ok()), (None, None));
    }
}
