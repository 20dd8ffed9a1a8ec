//! The journal's tables as other parties read them, compared with the committed text.

use sluice_journal::postgres::UsageLog;
use sluice_settings::Secret;
use testkit::Result;

use crate::bench::Bench;

/// Other parties read these tables: a change of this file is a change of a contract.
#[tokio::test]
async fn the_schema_is_the_committed_one() -> Result<()> {
    let bench = Bench::start()?;
    UsageLog::new(&Secret::new(bench.postgres.url()))?.probe().await?;
    let columns = "SELECT format('%s.%s %s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), \
            CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, \
            coalesce(CASE WHEN a.attgenerated = 's' THEN ' generated ' ELSE ' default ' END || pg_get_expr(d.adbin, d.adrelid), '')), \
            col_description(c.oid, a.attnum) IS NOT NULL \
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname NOT LIKE '\\_sqlx%' \
        ORDER BY c.relname, a.attnum";
    let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '\\_sqlx%' ORDER BY indexname";
    let pool = bench.postgres.pool().await?;
    let columns: Vec<(String, bool)> = sqlx::query_as(columns).fetch_all(&pool).await?;
    let indexes: Vec<String> = sqlx::query_scalar(indexes).fetch_all(&pool).await?;
    for (column, commented) in &columns {
        assert!(commented, "{column} does not say why it exists");
    }
    let lines: Vec<String> = columns.into_iter().map(|(column, _)| column).chain(indexes).collect();
    let schema = lines.join("\n") + "\n";
    let golden = testkit::dirs::workspace().join("tests/journal/schema.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &schema)?;
    }
    assert_eq!(schema, std::fs::read_to_string(&golden)?, "UPDATE_GOLDEN=1 writes the file anew");
    Ok(())
}
