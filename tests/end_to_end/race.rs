//! Q-1 through the proxy: 64 connections charge one account at once, and exactly what fits is admitted. A hundred times, each
//! with a fresh account, another limit and other amounts.

use testkit::books::{books_agree, settles_at, voids_done};
use testkit::client::{Client, Payment, Protocol};
use testkit::policies;
use testkit::stack::{Stack, StackOptions};
use testkit::{Context, Result};

use crate::suite::{self, Suite};

const CLIENTS: usize = 64;
const REPETITIONS: usize = 100;

/// What the account has room for, and what is asked of it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Equal amounts; the day's amount has room for some of them.
    Amount,
    /// Any amounts; the day's number has room for some of them.
    Count,
    /// Any amounts, and both limits.
    Both,
    /// Each order twice at once; the day's amount has room for some orders.
    Twice,
    /// One order with two amounts: one of them wins, the other is a conflict.
    OneOrder,
    /// Every other payment fails at the gateway and is returned.
    Failing,
}

#[derive(Clone, Debug)]
struct Race {
    merchant: String,
    kind: Kind,
    amount_max: u64,
    count_max: u64,
    /// One for each client.
    amounts: Vec<u64>,
}

/// One payment as its client saw it.
struct Ran {
    order: String,
    amount: u64,
    status: u16,
    code: String,
}

pub(crate) fn add(suite: &mut Suite) {
    let races: Vec<Race> = (0..REPETITIONS).map(race).collect();
    let lines: Vec<String> = races.iter().map(policy).collect();
    let options = StackOptions { policies: Some(policies::with("race", &lines.join("\n"))), ..suite::patient() };
    suite.owned("race::a_retry_meets_its_void", suite::patient(), a_retry_meets_its_void);
    suite.owned("race::exactly_what_fits_is_admitted", options, async move |stack: &mut Stack| {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(stack.client(Protocol::BOTH[number % 2]).await?);
        }
        for race in &races {
            clients = run(stack, race, clients).await.context(format!("{race:?}"))?;
        }
        voids_done(stack).await?;
        for race in &races {
            books_agree(stack, &race.merchant).await?;
        }
        Ok(())
    });
}

/// A client whose payment failed at the gateway tries again at once: its retry overtakes the void of the first attempt or
/// not, and is admitted and charged once either way.
async fn a_retry_meets_its_void(stack: &mut Stack) -> Result<()> {
    const ROUNDS: usize = 5;
    let mut running = Vec::new();
    for number in 0..CLIENTS {
        let mut client = stack.client(Protocol::BOTH[number % 2]).await?;
        running.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let payment = Payment::new("roomy", &format!("roomy-{number}-{round}"), policies::SINGLE_MIN);
                for _ in 0..=round {
                    ensure_eq!(client.send(payment.clone().gateway("fail-422").call()).await?.status, 422);
                }
                let answer = client.send(payment.call()).await?;
                ensure_eq!(answer.status, 200, "{}", answer.json());
            }
            Ok(())
        }));
    }
    for running in running {
        running.await??;
    }
    let count = (CLIENTS * ROUNDS) as u64;
    voids_done(stack).await?;
    settles_at(stack, "roomy", (count * policies::SINGLE_MIN, count)).await?;
    books_agree(stack, "roomy").await.map(drop)
}

/// The numbers of a race follow from its own number alone (xorshift), so that a failure can be run again.
fn race(number: usize) -> Race {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(number as u64 + 1);
    let mut random = |from: u64, to: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        from + state % (to - from + 1)
    };
    let kind = [Kind::Amount, Kind::Count, Kind::Both, Kind::Twice, Kind::OneOrder, Kind::Failing][number % 6];
    let equal = random(policies::SINGLE_MIN, policies::SINGLE_MAX - 1);
    let amounts = (0..CLIENTS).map(|_| match kind {
        Kind::Amount | Kind::Twice => equal,
        Kind::OneOrder => equal + random(0, 1),
        Kind::Count | Kind::Both | Kind::Failing => random(policies::SINGLE_MIN, policies::SINGLE_MAX),
    });
    let amounts: Vec<u64> = amounts.collect();
    let room = random(1, 40);
    let (amount_max, count_max) = match kind {
        Kind::Amount | Kind::Twice => (equal * room + random(0, equal - 1), u64::MAX),
        Kind::Count => (u64::MAX, room),
        Kind::OneOrder => (u64::MAX, u64::MAX),
        Kind::Both => (random(1, 200_000), room),
        Kind::Failing => (random(10_000, 100_000), u64::MAX),
    };
    Race { merchant: format!("race{number}"), kind, amount_max, count_max, amounts }
}

fn policy(race: &Race) -> String {
    let limit = |max: u64| if max == u64::MAX { "unlimited".to_owned() } else { max.to_string() };
    let Race { merchant, amount_max, count_max, .. } = race;
    format!("{merchant}: {{daily_amount: {}, daily_count: {}}}", limit(*amount_max), limit(*count_max))
}

async fn run(stack: &Stack, race: &Race, clients: Vec<Client>) -> Result<Vec<Client>> {
    let start = |(at, client)| tokio::spawn(pay(race.clone(), at, client));
    // All are started before the first is waited for.
    let running: Vec<_> = clients.into_iter().enumerate().map(start).collect();
    let (mut ran, mut clients) = (Vec::new(), Vec::new());
    for running in running {
        let (client, answer) = running.await??;
        clients.push(client);
        ran.push(answer);
    }
    judge(stack, race, &ran).await?;
    Ok(clients)
}

async fn pay(race: Race, at: usize, mut client: Client) -> Result<(Client, Ran)> {
    let number = match race.kind {
        Kind::Twice => at / 2,
        Kind::OneOrder => 0,
        Kind::Amount | Kind::Count | Kind::Both | Kind::Failing => at,
    };
    let (order, amount) = (format!("{}-{number}", race.merchant), race.amounts[at]);
    let mut payment = Payment::new(&race.merchant, &order, amount);
    if matches!(race.kind, Kind::Failing) && at % 2 == 1 {
        payment = payment.gateway("fail-422");
    }
    let answer = client.send(payment.call()).await?;
    let (status, code) = (answer.status, answer.code());
    Ok((client, Ran { order, amount, status, code }))
}

async fn judge(stack: &Stack, race: &Race, ran: &[Ran]) -> Result<()> {
    let announced = |ran: &&Ran| match (ran.status, &*ran.code) {
        (200, "") | (429, "DAILY_AMOUNT" | "DAILY_COUNT") => true,
        (409, "IDEMPOTENCY_CONFLICT") => matches!(race.kind, Kind::OneOrder),
        (422, "") => matches!(race.kind, Kind::Failing),
        _ => false,
    };
    let strange = ran.iter().find(|ran| !announced(ran));
    ensure!(strange.is_none(), "{:?}", strange.map(|ran| (&ran.order, ran.status, &ran.code)));
    let mut admitted: Vec<_> = ran.iter().filter(|ran| ran.status == 200).map(|ran| (&ran.order, ran.amount)).collect();
    admitted.sort_unstable();
    let answers = admitted.len();
    admitted.dedup();
    let (sum, count) = (admitted.iter().map(|(_, amount)| amount).sum::<u64>(), admitted.len() as u64);
    ensure!(sum <= race.amount_max && count <= race.count_max, "over: {sum} in {count}");
    let expected = match race.kind {
        Kind::Amount | Kind::Twice => Some(race.amount_max / race.amounts[0]),
        Kind::Count => Some(race.count_max),
        Kind::OneOrder => Some(1),
        Kind::Both | Kind::Failing => None,
    };
    let orders = if matches!(race.kind, Kind::Twice) { CLIENTS / 2 } else { CLIENTS };
    ensure!(expected.is_none_or(|expected| count == expected.min(orders as u64)), "{count} were admitted");
    if matches!(race.kind, Kind::Twice) {
        ensure_eq!(answers, 2 * admitted.len(), "both of a pair get one answer");
    }
    if matches!(race.kind, Kind::OneOrder) {
        let alike = ran.iter().filter(|ran| ran.amount == sum).count();
        ensure_eq!(answers, alike, "all with the winning amount are admitted");
    }
    // Nothing is refused that would still fit. Where charges are returned meanwhile, it may have been full before.
    if !matches!(race.kind, Kind::Failing) {
        for refused in ran.iter().filter(|ran| ran.status == 429) {
            let by_count = refused.code == "DAILY_COUNT" && count == race.count_max;
            let by_amount = refused.code == "DAILY_AMOUNT" && refused.amount > race.amount_max - sum;
            ensure!(by_count || by_amount, "{} of {} was refused", refused.order, refused.amount);
        }
    }
    settles_at(stack, &race.merchant, (sum, count)).await
}
