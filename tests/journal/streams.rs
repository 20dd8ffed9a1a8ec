//! Reading the streams: who reads, how much at once, and that nothing is removed but what was stored.

use std::time::Duration;

use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::reply::Entry;
use sluice_journal::stream::{EventStream, Lease};
use sluice_settings::Secret;
use testkit::Result;

use crate::bench::{Bench, SHARDS, SOON, event, waiting};

const LONG: Duration = Duration::from_secs(3600);

async fn reader(bench: &Bench, name: &str) -> Result<EventStream> {
    Ok(EventStream::connect(&Secret::new(bench.redis.url()), SHARDS, name).await?)
}

fn numbers(entries: &[Entry], shard: u16) -> Vec<u64> {
    entries.iter().filter(|entry| entry.shard == shard).filter_map(|entry| entry.id.sequence()).collect()
}

#[tokio::test]
async fn one_reads_at_a_time() -> Result<()> {
    let bench = Bench::start()?;
    let (mut a, mut b) = (reader(&bench, "a").await?, reader(&bench, "b").await?);
    assert_eq!(a.lead(LONG).await?, Lease::Taken);
    assert_eq!(a.lead(LONG).await?, Lease::Kept);
    assert_eq!(b.lead(LONG).await?, Lease::Others);
    b.resign().await?;
    assert_eq!(a.lead(LONG).await?, Lease::Kept, "given back by one that does not have it");
    a.resign().await?;
    assert_eq!(b.lead(LONG).await?, Lease::Taken);
    assert_eq!(a.lead(LONG).await?, Lease::Others);
    // Shortened to an end: as when its holder is gone.
    assert_eq!(b.lead(SOON).await?, Lease::Kept);
    let taken = testkit::wait::until_async("the lease", LONG, || {
        let a = reader(&bench, "a");
        async move { Ok((a.await?.lead(LONG).await? == Lease::Taken).then_some(())) }
    });
    taken.await
}

/// However the events lie, a read brings no more than it may, each shard's in their order, and goes on behind what is stored.
#[tokio::test]
async fn a_read_brings_no_more_than_it_may() -> Result<()> {
    for (events, max, expected) in [
        ([500, 0, 0, 0], 100, [100, 0, 0, 0]),
        ([500, 3, 0, 0], 100, [97, 3, 0, 0]),
        ([500, 500, 500, 500], 100, [25, 25, 25, 25]),
        ([10, 10, 10, 10], 100, [10, 10, 10, 10]),
        ([2, 2, 2, 2], 1, [1, 1, 1, 1]),
        ([0, 0, 0, 0], 100, [0, 0, 0, 0]),
    ] {
        let bench = Bench::start()?;
        let mut number = 0;
        for (shard, count) in (0..).zip(events) {
            bench.append(shard, (number + 1..=number + count).map(event)).await?;
            number += count;
        }
        let mut stream = reader(&bench, "a").await?;
        let first = stream.read(max, SOON).await?;
        for (shard, count) in (0..).zip(expected) {
            assert_eq!(numbers(&first, shard), (1..=count).collect::<Vec<_>>(), "{events:?} {max} shard {shard}");
        }
        stream.note_stored(first.iter());
        let rest = stream.read(10_000, SOON).await?;
        for ((shard, count), all) in (0..).zip(expected).zip(events) {
            assert_eq!(numbers(&rest, shard), (count + 1..=all).collect::<Vec<_>>(), "{events:?} {max} shard {shard}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_stored_is_removed_and_the_rest_stays() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(0, (1..=5).map(event)).await?;
    bench.append(2, (6..=9).map(event)).await?;
    let mut stream = reader(&bench, "a").await?;
    let entries = stream.read(8, SOON).await?;
    stream.note_stored(entries.iter().filter(|entry| entry.shard == 0 || entry.id.sequence() <= Some(2)));
    assert_eq!(stream.stored(), 2 + numbers(&entries, 0).len());
    assert_eq!(stream.remove_stored().await?, [0_u16; 0]);
    assert_eq!(stream.stored(), 0);
    let left = stream.read(100, SOON).await?;
    assert_eq!(numbers(&left, 2), [3, 4]);
    assert_eq!(stream.positions().await?.iter().map(|p| (p.removed, p.generated)).nth(2), Some((2, 4)));
    assert_eq!(stream.remove_stored().await?, [0_u16; 0], "nothing new is stored");
    Ok(())
}

/// Redis was emptied between the reading and the removal, and has given the same numbers to other events.
#[tokio::test]
async fn other_events_under_the_same_numbers_stay() -> Result<()> {
    for others in [3, 5, 8] {
        let bench = Bench::start()?;
        bench.append(0, (1..=5).map(event)).await?;
        bench.append(1, (6..=7).map(event)).await?;
        let mut stream = reader(&bench, "a").await?;
        let entries = stream.read(100, SOON).await?;
        stream.note_stored(entries.iter());
        empty(&bench, 0).await?;
        bench.append(0, (101..=100 + others).map(event)).await?;
        let mut connection = bench.connection().await?;
        assert_eq!(stream.remove_stored().await?, [0], "{others} others");
        assert_eq!(waiting(&mut connection, SHARDS).await?, others);
        assert_eq!(numbers(&stream.read(100, SOON).await?, 0), (1..=others).collect::<Vec<_>>());
    }
    Ok(())
}

/// Redis was emptied between two reads: the second goes on in the middle of the new stream, whose beginning no reader
/// has read.
#[tokio::test]
async fn what_was_read_of_two_streams_removes_nothing() -> Result<()> {
    // How many were stored after each read: of the old stream, then of the new one.
    for (old, others, new) in [(vec![5], 8, vec![3]), (vec![2, 3], 8, vec![1, 2]), (vec![3, 2], 20, vec![5, 5, 5])] {
        let bench = Bench::start()?;
        bench.append(0, (1..=5).map(event)).await?;
        let mut stream = reader(&bench, "a").await?;
        store(&mut stream, &old).await?;
        empty(&bench, 0).await?;
        bench.append(0, (101..=100 + others).map(event)).await?;
        store(&mut stream, &new).await?;
        let mut connection = bench.connection().await?;
        assert_eq!(stream.remove_stored().await?, [0], "{new:?} of {others}");
        assert_eq!(waiting(&mut connection, SHARDS).await?, others, "{new:?} of {others}");
        assert_eq!(numbers(&stream.read(100, SOON).await?, 0), (1..=others).collect::<Vec<_>>());
    }
    Ok(())
}

/// That the stream is another one is found with the first half of what a read brought: the second half was read behind the new
/// one's beginning too.
#[tokio::test]
async fn the_rest_of_what_was_read_of_another_stream_removes_nothing() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(0, (1..=5).map(event)).await?;
    let mut stream = reader(&bench, "a").await?;
    let entries = stream.read(100, SOON).await?;
    stream.note_stored(entries.iter());
    empty(&bench, 0).await?;
    bench.append(0, (101..=120).map(event)).await?;
    bench.append(1, (121..=122).map(event)).await?;
    let entries = stream.read(100, SOON).await?;
    let (first, rest) = entries.split_at(5);
    assert_eq!((numbers(first, 0), numbers(rest, 1)), ((6..=10).collect(), vec![1, 2]));
    stream.note_stored(first.iter());
    assert_eq!(stream.remove_stored().await?, [0]);
    stream.note_stored(rest.iter());
    assert_eq!(stream.remove_stored().await?, [0_u16; 0]);
    assert_eq!(waiting(&mut bench.connection().await?, SHARDS).await?, 20, "the other shard's are removed");
    assert_eq!(numbers(&stream.read(100, SOON).await?, 0), (1..=20).collect::<Vec<_>>());
    Ok(())
}

/// Reads again and again, and notes as many as given of what each read brings.
async fn store(stream: &mut EventStream, counts: &[usize]) -> Result<()> {
    for count in counts {
        let entries = stream.read(100, SOON).await?;
        stream.note_stored(entries.iter().take(*count));
    }
    Ok(())
}

async fn empty(bench: &Bench, shard: u16) -> Result<()> {
    let key = sluice_store::keys::stream(shard);
    Ok(redis::cmd("DEL").arg(key).query_async::<()>(&mut bench.connection().await?).await?)
}

/// A journal dies after it has stored events and before it has stored what became of their accounts.
#[tokio::test]
async fn accounts_that_a_dead_journal_has_gathered_are_stored_by_the_next() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(0, (1..=50).map(event)).await?;
    let mut dead = reader(&bench, "dead").await?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let batch = Batch::read(dead.read(100, SOON).await?);
    assert_eq!(log.store_events(&batch).await?.rows, 50);
    dead.note_stored(batch.entries());
    drop((dead, log));
    assert_eq!(bench.count("SELECT count(*) FROM quota_account").await?, 0);

    let journal = bench.journal("next")?;
    bench.wait_until_drained(SHARDS).await?;
    assert_eq!(bench.count("SELECT seq FROM quota_account").await?, 50);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log").await?, 50);
    journal.stop()
}
