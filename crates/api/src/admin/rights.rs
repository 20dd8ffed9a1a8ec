//! `/rights`: what is set aside of accounts for holders that admit payments without a call, and was not returned.

use axum::extract::State;
use chrono::{DateTime, Utc};
use quota::{Currency, MerchantId, shard_of};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::execute::{no_decision, parse_currency, parse_merchant};
use super::openapi::Problems;
use super::page::{Cursor, Page, limit};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Json, Permission, Query};
use sluice_decision::operations::moment;
use sluice_store::{OutstandingRight, OutstandingRights, RedisStore, StoreError};

/// Items on a page if the caller names no limit.
const LIMIT_DEFAULT: u64 = 100;
/// Most items on a page.
pub const LIMIT_MAX: u64 = 500;
/// Rights that one read of a shard looks at where not all of them are listed.
const RIGHTS_PER_READ: usize = 500;
/// Reads of shards for one page, and rights that they look at. More of either take another page.
const READS_MAX: usize = 256;
const RIGHTS_READ_MAX: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which rights are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RightQuery {
    #[param(max_length = 64, example = "merchant-001")]
    pub merchant_id: Option<String>,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    pub currency: Option<String>,
    /// Whether its holder is lost.
    pub orphaned: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Most items to answer with; 100 by default.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u64>,
}

/// A right that has not ended. What is left of it counts as used. Amounts are minor units, as the amount limits count them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RightView {
    /// As usage logs of payments that were admitted from it have it.
    #[schema(example = "5c1f0a90-0000-0000-0000-00000000002a")]
    pub right_id: Uuid,
    #[schema(example = "merchant-001")]
    pub merchant_id: String,
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = 500_000)]
    pub granted_amount: u64,
    /// A number of payments.
    #[schema(example = 64)]
    pub granted_count: u64,
    /// The amount that no payment was reported for yet.
    #[schema(example = 480_000)]
    pub left_amount: u64,
    /// The same of the number of payments.
    #[schema(example = 62)]
    pub left_count: u64,
    /// When its holder stops using it. From then on it can be released.
    pub until: DateTime<Utc>,
    /// Whether its holder is lost: it ends when it is released, or when its windows are over.
    pub orphaned: bool,
    /// The decision that granted it; its usage log row has the same id.
    pub decision_id: Uuid,
    /// The business day that it is counted in, YYYYMMDD.
    #[schema(example = 20_261_121)]
    pub day: u32,
}

impl From<OutstandingRight> for RightView {
    fn from(outstanding: OutstandingRight) -> Self {
        let OutstandingRight { merchant, currency, id, right } = outstanding;
        Self {
            right_id: Uuid::from_bytes(id.0),
            merchant_id: merchant.to_string(),
            currency: currency.code().to_owned(),
            granted_amount: right.granted.amount,
            granted_count: right.granted.count,
            left_amount: right.left.amount,
            left_count: right.left.count,
            until: moment(right.until_ms).unwrap_or_default(),
            orphaned: right.orphaned,
            decision_id: Uuid::from_bytes(right.decision_id),
            day: right.counted_in.day.id,
        }
    }
}

/// The position in the list of rights. The rights of a shard have no other order than the one of their end, so that a right that
/// ends while the list is read may move another one to a place that was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightPlace {
    shard: u16,
    offset: usize,
}

impl Cursor for RightPlace {}

/// The rights to list.
#[derive(Clone, Debug, Default)]
pub struct RightFilter {
    pub merchant: Option<MerchantId>,
    pub currency: Option<Currency>,
    pub orphaned: Option<bool>,
}

impl RightFilter {
    fn admits(&self, own: &OutstandingRight) -> bool {
        self.merchant.as_ref().is_none_or(|merchant| *merchant == own.merchant)
            && self.currency.is_none_or(|currency| currency == own.currency)
            && self.orphaned.is_none_or(|orphaned| orphaned == own.right.orphaned)
    }

    fn is_all(&self) -> bool {
        self.merchant.is_none() && self.currency.is_none() && self.orphaned.is_none()
    }

    /// The first place of the list, and the shard after its last one. With a merchant these are those of its shard.
    fn bounds(&self, shards: u16) -> (RightPlace, u16) {
        let (first, end) = match &self.merchant {
            Some(merchant) => {
                let shard = shard_of(merchant, shards);
                (shard, shard.saturating_add(1))
            }
            None => (0, shards),
        };
        (RightPlace { shard: first, offset: 0 }, end)
    }

    /// Whether the list has such a place.
    fn contains(&self, shards: u16, place: RightPlace) -> bool {
        let (first, end) = self.bounds(shards);
        (first.shard..end).contains(&place.shard)
    }

    /// At most `limit` rights from a place on, or from the start, and where the list goes on. Reads are bounded: a page may have
    /// fewer rights, or none, and others after it.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn page(
        &self,
        store: &RedisStore,
        shards: u16,
        place: Option<RightPlace>,
        limit: usize,
    ) -> Result<(Vec<RightView>, Option<RightPlace>), StoreError> {
        let (first, end) = self.bounds(shards);
        let (mut place, mut views, mut members) = (place.unwrap_or(first), Vec::new(), 0_usize);
        for _ in 0..READS_MAX {
            let room = limit.saturating_sub(views.len());
            if place.shard >= end || room == 0 || members >= RIGHTS_READ_MAX {
                break;
            }
            let (found, is_last) = self.read(store, place, room).await?;
            place = if is_last {
                RightPlace { shard: place.shard.saturating_add(1), offset: 0 }
            } else {
                RightPlace { offset: place.offset.saturating_add(found.members), ..place }
            };
            members = members.saturating_add(found.members);
            views.extend(found.rights.into_iter().map(RightView::from));
        }
        Ok((views, (place.shard < end).then_some(place)))
    }

    /// Some rights of one shard, at most `room` that are to be listed, and whether they are the shard's last ones.
    async fn read(
        &self,
        store: &RedisStore,
        place: RightPlace,
        room: usize,
    ) -> Result<(OutstandingRights, bool), StoreError> {
        let mut size = if self.is_all() { room } else { room.max(RIGHTS_PER_READ) };
        loop {
            let range = place.offset..place.offset.saturating_add(size);
            let mut found = store.rights(place.shard, range).await?;
            found.rights.retain(|own| self.admits(own));
            if found.rights.len() <= room {
                let is_last = found.members < size;
                return Ok((found, is_last));
            }
            // There is no place between the rights of one read.
            size = room;
        }
    }
}

/// Rights that have not ended: by shard, and in each those first that end first. They are read from the store as they are now. A
/// page may have fewer items than its limit, or none, and a `next_cursor`; a right that ends while pages are read may make another
/// one be left out.
#[utoipa::path(get, path = "/rights", tag = "quotas", operation_id = "list_rights", params(RightQuery),
    responses((status = OK, body = Page<RightView>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<RightQuery>,
) -> Answer<Json<Page<RightView>>> {
    read(&admin, &caller, query).await.map(Json)
}

/// A page of the rights that the caller may see.
pub(crate) async fn read(admin: &Admin, caller: &Caller, query: RightQuery) -> Answer<Page<RightView>> {
    caller.require(Permission::QuotasRead)?;
    let filter = RightFilter {
        merchant: caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
        currency: query.currency.as_deref().map(parse_currency).transpose()?,
        orphaned: query.orphaned,
    };
    let limit = limit(query.limit.or(Some(LIMIT_DEFAULT)), LIMIT_MAX)?;
    let place = query.cursor.as_deref().map(RightPlace::decode).transpose()?;
    if place.is_some_and(|place| !filter.contains(admin.shards, place)) {
        return Err(Problem::field("cursor", "this is no cursor of this list; give back next_cursor as it was"));
    }
    let store = admin.operations.store();
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = filter.page(store.redis(), admin.shards, place, limit).await;
    let (items, next) = page.map_err(|error| no_decision(&error))?;
    Ok(Page { items, next_cursor: next.map(|place| place.encode()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merchants_list_is_that_of_its_shard() {
        let merchant = MerchantId::parse("shop").unwrap();
        let shard = shard_of(&merchant, 64);
        let (all, own) = (RightFilter::default(), RightFilter { merchant: Some(merchant), ..RightFilter::default() });
        for (filter, at, expected) in [
            (&all, 0, true),
            (&all, 63, true),
            (&all, 64, false),
            (&own, shard, true),
            (&own, shard + 1, false),
            (&own, shard.wrapping_sub(1), false),
        ] {
            let place = RightPlace { shard: at, offset: 7 };
            assert_eq!(filter.contains(64, place), expected, "{filter:?} {at}");
            assert_eq!(RightPlace::decode(&place.encode()).unwrap(), place);
        }
        assert!(RightPlace::decode("e30").is_err());
    }
}
