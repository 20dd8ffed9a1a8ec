//! Access tokens for programs: created, listed, rotated and revoked by administrators. A merchant's people create, list and revoke
//! those of the merchant, within their own permissions. The token itself is only in the answer that creates it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use quota::MerchantId;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::{grantable, token};
use super::idempotency::KeptBody;
use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{self, Cursor, Page, TimeId};
use super::problem::{Answer, Kind, Problem};
use super::{API, Admin, Caller, Json, Path, Permission, Query, Role};
use crate::store::access_tokens::{self, AccessToken, Grant, NewId, Visible};
use sluice_kit::clock;
use sluice_kit::telemetry::AUDIT;
use sluice_settings::Secret;

/// Longest name, in characters.
const NAME_LEN_MAX: usize = 100;
/// How long a token that a merchant makes for itself lasts at most, and lasts where nothing is said: 90 days.
const OWN_LIFE_MS: i64 = 90 * 86_400_000;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke)).routes(routes!(rotate))
}

/// What a new token is to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    pub role: Role,
    /// The only merchant whose data it sees; needed for the role `merchant`.
    pub merchant_id: Option<String>,
    /// Narrows what the role grants. A token never writes or approves policies, and never manages tokens.
    pub permissions: Option<Vec<Permission>>,
    /// From when on it is refused; absent for a token that only a revocation ends. A token that a merchant makes for itself ends
    /// after 90 days at the latest.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Whose tokens a caller may handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All that it sees.
    All,
    /// Those of its merchant's own programs.
    Own,
}

impl Reach {
    /// Of the caller.
    fn of(caller: &Caller) -> Answer<Self> {
        if caller.scopes.has(Permission::TokensManage) {
            return Ok(Self::All);
        }
        caller.require(Permission::TokensOwn)?;
        match caller.merchant {
            Some(_) => Ok(Self::Own),
            None => Err(Problem::new(Kind::Forbidden).detail("the caller has no merchant of its own")),
        }
    }

    /// What the caller may see of them.
    const fn visible(self, caller: &Caller) -> Visible<'_> {
        Visible { merchant: caller.merchant.as_ref(), role: self.role() }
    }

    /// The only role whose tokens it reaches.
    const fn role(self) -> Option<Role> {
        match self {
            Self::All => None,
            Self::Own => Some(Role::Merchant),
        }
    }
}

/// A new access token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// The token itself, shown this once; absent where the answer is repeated for an Idempotency-Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "slc_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    token: Option<String>,
    access_token: AccessToken,
}

/// Which tokens to list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only those that are in force, or only those that are not.
    active: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Why a merchant makes no more tokens.
const TOO_MANY: &str = "the merchant has 20 access tokens in force, which is the most: revoke one first";

/// Make an access token. A merchant makes tokens of the role `merchant` for itself, with permissions that it has, 20 in force at
/// most.
#[utoipa::path(
    post, path = "/access-tokens", tag = "access tokens", operation_id = "create_access_token", request_body = NewToken,
    responses((status = CREATED, body = CreatedToken), Problems, BodyProblems, Refusals),
)]
async fn create(State(admin): State<Admin>, caller: Caller, Json(new): Json<NewToken>) -> Answer<Response> {
    let reach = Reach::of(&caller)?;
    let new = new.check(&caller, reach, clock::now_ms())?;
    let text = token::generate()?;
    let id = Uuid::from_bytes(clock::decision_id());
    let id = NewId { id, secret_hash: &token::hash(text.expose()) };
    let made = access_tokens::insert(&admin.pool, id, &new, caller.subject.as_str(), reach.role()).await?;
    let made = made.ok_or_else(|| Problem::new(Kind::Conflict).detail(TOO_MANY))?;
    info!(target: AUDIT, token_id = %made.id, actor = %caller.subject, role = made.role, "access token created");
    created(&text, made)
}

/// List access tokens, the newest first.
#[utoipa::path(
    get, path = "/access-tokens", tag = "access tokens", operation_id = "list_access_tokens", params(ListQuery),
    responses((status = OK, body = Page<AccessToken>), Problems),
)]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<AccessToken>>> {
    let visible = Reach::of(&caller)?.visible(&caller);
    let limit = page::limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?;
    let tokens = access_tokens::list(&admin.pool, visible, query.active, after, limit.saturating_add(1)).await?;
    Ok(Json(Page::from_rows(tokens, limit, |last| TimeId(last.created_at, last.id))))
}

/// Revoke an access token. It is refused at once by this server, and within a second by the others.
#[utoipa::path(
    delete, path = "/access-tokens/{id}", tag = "access tokens", operation_id = "revoke_access_token",
    params(("id" = Uuid, Path)), responses((status = NO_CONTENT), Problems, NotFound),
)]
async fn revoke(State(admin): State<Admin>, caller: Caller, Path(id): Path<Uuid>) -> Answer<StatusCode> {
    let visible = Reach::of(&caller)?.visible(&caller);
    if !access_tokens::revoke(&admin.pool, id, visible, caller.subject.as_str()).await? {
        return Err(Problem::new(Kind::NotFound));
    }
    admin.auth.forget_tokens();
    info!(target: AUDIT, token_id = %id, actor = %caller.subject, "access token revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Put a new access token in the place of one: same role, merchant, permissions and expiry. The old one is revoked.
#[utoipa::path(
    post, path = "/access-tokens/{id}/rotate", tag = "access tokens", operation_id = "rotate_access_token",
    params(("id" = Uuid, Path)), responses((status = CREATED, body = CreatedToken), Problems, BodyProblems, NotFound),
)]
async fn rotate(State(admin): State<Admin>, caller: Caller, Path(id): Path<Uuid>) -> Answer<Response> {
    caller.require(Permission::TokensManage)?;
    let merchant = caller.merchant.as_ref();
    let text = token::generate()?;
    let new = Uuid::from_bytes(clock::decision_id());
    let new = NewId { id: new, secret_hash: &token::hash(text.expose()) };
    let Some(made) = access_tokens::replace(&admin.pool, id, merchant, new, caller.subject.as_str()).await? else {
        return Err(match access_tokens::exists(&admin.pool, id, merchant).await? {
            true => Problem::new(Kind::Conflict).detail("the token is revoked or expired; make a new one"),
            false => Problem::new(Kind::NotFound),
        });
    };
    admin.auth.forget_tokens();
    info!(target: AUDIT, token_id = %made.id, replaces = %id, actor = %caller.subject, "access token rotated");
    created(&text, made)
}

/// The answer with the token's text; what is kept for an Idempotency-Key is the same without it.
fn created(text: &Secret, access_token: AccessToken) -> Answer<Response> {
    let location = format!("{API}/access-tokens/{}", access_token.id);
    let mut body = CreatedToken { token: None, access_token };
    let json = |body: &CreatedToken| serde_json::to_vec(body).map_err(|error| Problem::internal("an answer", &error));
    let kept = json(&body)?;
    body.token = Some(text.expose().to_owned());
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::LOCATION, location)];
    let mut response = (StatusCode::CREATED, headers, Body::from(json(&body)?)).into_response();
    response.extensions_mut().insert(KeptBody(Bytes::from(kept)));
    Ok(response)
}

impl NewToken {
    /// Checks every field; a caller of one merchant makes tokens of that merchant only.
    fn check(self, caller: &Caller, reach: Reach, now_ms: i64) -> Answer<Grant> {
        let merchant = self.merchant_id.as_deref().map(MerchantId::parse).transpose();
        let merchant = merchant.map_err(|error| Problem::field("merchant_id", error.to_string()))?;
        let grant = self.grant(caller.narrow(merchant)?, now_ms)?;
        match reach {
            Reach::All => Ok(grant),
            Reach::Own => within(caller, grant, now_ms),
        }
    }

    fn grant(self, merchant: Option<MerchantId>, now_ms: i64) -> Answer<Grant> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > NAME_LEN_MAX || name.chars().any(char::is_control) {
            let detail = format!("must have 1 to {NAME_LEN_MAX} characters and no control characters");
            return Err(Problem::field("name", detail));
        }
        if self.role == Role::Merchant && merchant.is_none() {
            return Err(Problem::field("merchant_id", "the role merchant needs one"));
        }
        let granted = grantable(self.role);
        if let Some(permissions) = &self.permissions {
            if permissions.is_empty() {
                return Err(Problem::field("permissions", "must name one at least, or be absent for all of the role"));
            }
            if let Some(other) = permissions.iter().find(|permission| !granted.has(**permission)) {
                let detail = format!("a token of the role {} cannot hold {}", self.role.into_str(), other.into_str());
                return Err(Problem::field("permissions", detail));
            }
        }
        if self.expires_at.is_some_and(|at| at.timestamp_millis() <= now_ms) {
            return Err(Problem::field("expires_at", "must be in the future"));
        }
        page::check_time("expires_at", self.expires_at)?;
        let (role, permissions, expires_at) = (self.role, self.permissions, self.expires_at);
        Ok(Grant { name: name.to_owned(), role, merchant, permissions, expires_at })
    }
}

/// The grant as a merchant may give it to its own programs: no role or permission beyond its own, and a life of 90 days at
/// most. It stays in force when its maker's own access ends.
fn within(caller: &Caller, grant: Grant, now_ms: i64) -> Answer<Grant> {
    if grant.role != Role::Merchant {
        caller.require(Permission::TokensManage)?;
    }
    let held = grantable(Role::Merchant).and(caller.scopes);
    let permissions = grant.permissions.unwrap_or_else(|| held.iter().collect());
    if let Some(other) = permissions.iter().find(|permission| !held.has(**permission)) {
        return Err(Problem::field("permissions", format!("the caller itself lacks {}", other.into_str())));
    }
    let last = DateTime::from_timestamp_millis(now_ms.saturating_add(OWN_LIFE_MS)).unwrap_or_default();
    match grant.expires_at {
        Some(at) if at > last => Err(Problem::field("expires_at", "must be within 90 days")),
        expires_at => {
            Ok(Grant { permissions: Some(permissions), expires_at: Some(expires_at.unwrap_or(last)), ..grant })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW_MS: i64 = 1_795_139_200_000;

    fn check(new: Value, merchant: Option<&str>) -> Result<Grant, String> {
        let new: NewToken = serde_json::from_value(new).map_err(|error| error.to_string())?;
        let caller = Caller {
            subject: quota::ActorId::parse("a").unwrap(),
            roles: vec![Role::Admin],
            merchant: merchant.map(|id| MerchantId::parse(id).unwrap()),
            scopes: Role::Admin.permissions(),
            via: super::super::auth::Via::Jwt,
            expires_at_ms: None,
        };
        new.check(&caller, Reach::All, NOW_MS).map_err(|problem| serde_json::to_string(&problem).unwrap())
    }

    #[test]
    fn grants_are_checked_field_by_field() {
        let table = [
            (json!({"name": "", "role": "admin"}), "\"name\""),
            (json!({"name": "x".repeat(101), "role": "admin"}), "\"name\""),
            (json!({"name": "a\nb", "role": "admin"}), "\"name\""),
            (json!({"name": "a", "role": "root"}), "unknown variant"),
            (json!({"name": "a", "role": "admin", "owner": "b"}), "unknown field"),
            (json!({"name": "a", "role": "merchant"}), "\"merchant_id\""),
            (json!({"name": "a", "role": "merchant", "merchant_id": "a b"}), "\"merchant_id\""),
            (json!({"name": "a", "role": "operator", "permissions": []}), "\"permissions\""),
            (json!({"name": "a", "role": "operator", "permissions": ["settings:write"]}), "settings:write"),
            (json!({"name": "a", "role": "admin", "permissions": ["tokens:manage"]}), "tokens:manage"),
            (json!({"name": "a", "role": "admin", "permissions": ["policies:approve"]}), "policies:approve"),
            (json!({"name": "a", "role": "admin", "permissions": ["policies:write"]}), "policies:write"),
            (json!({"name": "a", "role": "admin", "permissions": ["*"]}), "unknown variant"),
            (json!({"name": "a", "role": "admin", "expires_at": "2026-11-20T01:46:40Z"}), "\"expires_at\""),
        ];
        for (new, expected) in table {
            let problem = check(new.clone(), None).unwrap_err();
            assert!(problem.contains(expected), "{new}: {problem}");
        }
        let good = json!({"name": " a ", "role": "operator", "permissions": ["quotas:read"], "expires_at": "2026-11-20T01:46:41Z"});
        assert_eq!(check(good, None).unwrap().name, "a");
    }

    #[test]
    fn whoever_sees_one_merchant_makes_tokens_of_that_one() {
        let unnamed = check(json!({"name": "a", "role": "operator"}), Some("m-1")).unwrap();
        assert_eq!(unnamed.merchant.unwrap().as_str(), "m-1");
        assert!(check(json!({"name": "a", "role": "operator", "merchant_id": "m-2"}), Some("m-1")).is_err());
    }
    #[test]
    fn a_merchant_makes_tokens_within_its_own_permissions() {
        let caller = |scopes: &[Permission]| Caller {
            subject: quota::ActorId::parse("a").unwrap(),
            roles: vec![Role::Merchant],
            merchant: Some(MerchantId::parse("m-1").unwrap()),
            scopes: scopes.iter().copied().collect(),
            via: super::super::auth::Via::Jwt,
            expires_at_ms: None,
        };
        let check = |new: Value, scopes: &[Permission]| {
            let new: NewToken = serde_json::from_value(new).unwrap();
            new.check(&caller(scopes), Reach::Own, NOW_MS).map_err(|problem| serde_json::to_string(&problem).unwrap())
        };
        let own = [Permission::QuotasRead, Permission::CreditRead, Permission::TokensOwn];
        let made = check(json!({"name": "a", "role": "merchant"}), &own).unwrap();
        assert_eq!(made.merchant.unwrap().as_str(), "m-1");
        assert_eq!(made.permissions.unwrap(), [Permission::QuotasRead, Permission::CreditRead]);
        assert_eq!(made.expires_at.unwrap().timestamp_millis(), NOW_MS + OWN_LIFE_MS);
        for (new, expected) in [
            (json!({"name": "a", "role": "operator"}), "lacks tokens:manage"),
            (json!({"name": "a", "role": "merchant", "merchant_id": "m-2"}), "own merchant"),
            (json!({"name": "a", "role": "merchant", "permissions": ["alerts:read"]}), "lacks alerts:read"),
            (json!({"name": "a", "role": "merchant", "permissions": ["tokens:own"]}), "tokens:own"),
            (json!({"name": "a", "role": "merchant", "expires_at": "2027-02-18T01:46:41Z"}), "90 days"),
        ] {
            let problem = check(new.clone(), &own).unwrap_err();
            assert!(problem.contains(expected), "{new}: {problem}");
        }
    }
}
