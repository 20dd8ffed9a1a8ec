//! Credit lines of the rig's merchants: put into Postgres as active, and known to the server before anything is measured.

use std::time::Duration;

use super::merchants::CREDIT;
use super::plan::{Payers, Stop};
use super::rig::{Rig, Way};
use super::variant::Variant;
use testkit::{Failure, Result, wait};

/// The server knows of new lines within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// A line for each merchant, with the default terms, that no run uses up.
const OPEN: &str = "INSERT INTO credit_line (merchant_id, currency, limit_base, terms, state, opened_on, activated_on, created_by, \
        edited_by, approved_by, approved_at) \
    SELECT name, 'USD', 9000000000000000, '{}', 'active', current_date, current_date, 'a', ARRAY['a'], 'b', now() \
    FROM UNNEST($1::text[]) AS name ON CONFLICT DO NOTHING";
/// Accounts whose last event has an exposure.
const ON_LINES: &str =
    "SELECT count(DISTINCT merchant_id) FROM usage_log WHERE merchant_id = ANY ($1) AND exposure_after > 0";

/// Opens a line for each merchant of [`CREDIT`], and has each of them pay until the server counts its exposure.
pub(super) async fn open(rig: &mut Rig) -> Result<()> {
    let names: Vec<String> = (0..CREDIT.count as usize).map(|number| Payers::name(CREDIT.prefix, number)).collect();
    let pool = rig.postgres.pool().await?;
    sqlx::query(OPEN).bind(&names).execute(&pool).await?;
    wait::until("the server to know the lines", KNOWN_WITHIN, || {
        let known = rig.server.metric("sluice_credit_lines", &[])?;
        Ok((known >= f64::from(CREDIT.count)).then_some(()))
    })?;
    let way = Way::from(Variant::Sluice);
    let plan = rig.plan(way, Stop::Payments { each: u64::from(CREDIT.count) }, CREDIT)?;
    rig.run(way, plan).await?;
    let counted: i64 = sqlx::query_scalar(ON_LINES).bind(&names).fetch_one(&pool).await?;
    pool.close().await;
    if counted == i64::from(CREDIT.count) {
        Ok(())
    } else {
        Err(Failure::new(format!("{counted} of {} merchants are on their credit line", CREDIT.count)))
    }
}
