-- The decision rule over accounts and orders, in one atomic step. The other implementation is quota/src/decide;
-- the differential suite compares them reply by reply.
--
-- KEYS  the orders, the accounts, the merchants and the rights (strings), the event streams of their shards, the expiry of the
--       shards' holds (sorted sets, in the order of the streams; may be left out where all commands are consumes), and where there are
--       rights that of the shards' rights (likewise). Each key is here once; commands name theirs by index, from 1.
-- ARGV  1 packed little endian: u8 1 to do all or none, 0 to decide each command by itself, and 2 in addition while servers of the
--         previous format are running; u16 numbers of orders, accounts,
--         merchants with rights, streams and threshold policies; f64 the store's time in ms where a test moves it, -1 for Redis' own clock
--       2 the lifetime of plain charges' orders, seconds as text; then for each command
--       3 the command, packed:
--           op u8, indexes u16 of account (0 for none), order and merchant among the keys, of the stream among the streams,
--           of the threshold policy (0 for none) and of the right among the keys (0 for none), backlog maximum u32, amount f64 (-1 where none is named), maxima f64
--           of a charge or grant (else 0): daily, weekly, monthly, yearly count, then the same amounts; now f64 (ms); the head of the
--           account (23 bytes, without its version) as it is if nothing is out of the ordinary: the windows of now, never reset,
--           not suspended, nothing pending, no threshold reached; the order (65 bytes) as a plain charge leaves it then; the
--           billing cycle u32 of the credit line, 0 without one; when
--           the day of the windows begins f64 (ms), order ttl u32 (s), flags u8 (1 dry, 2 refusals of a dry run are
--           journalled, 4 a pace follows, 8 last capture, reserved refund or another's end of a right, 16 a charge on a credit line
--           is refused where none follows, 32 a weight follows), refusal u8 (a code by which the policy refuses, else 0), replays
--           u8 that are let through (255 for any number), length u16 of the order's history; of a credit line: its limit
--           f64, and f64 the limit without the cap of an overdue line; of a weight: basis points u32, units per payment f64; by op:
--           0 plain consume: with no flag but 16, without refusal and history, and of the lifetime above; its maxima are those up
--             to which no threshold is reached: the limits' own maxima f64, in their order; 20 the same with a credit line
--           1 consume, 2 hold: for a hold the pending maximum f64, its lifetime u32 (s) and u8 (1 when expiry settles it);
--             with a pace f64: interval us, tolerance us, longest delay ms, and the eight ceilings in the order of the maxima
--           3 void of an attempt, 4 void of a hold, 8 expiry, 11 suspend, 12 resume, 13 initialize, 14 roll: nothing
--           5 settle: id 16 bytes, over-capture percent u8 (255 where the gateway has captured already)
--           6 refund, 7 release: id 16 bytes, daily f64 and monthly f64 maximum
--           9 adjust: counter u8, change u8 (1 add, 2 subtract, 3 set), expected version f64 (-1 for any)
--           10 reset: windows u8 (1 day, 2 month, 4 year, 8 week), when the day of the command's windows ends f64 (ms), expected
--             version f64 (-1 for any)
--           15 mark unknown: of what u8 (0 the charge, 1 a capture, 3 a refund, 4 the void), id 16 bytes
--           16 resolve: u8 (1 made, 0 not made)
--           17 suspend the merchant, 18 resume it: nothing
--           19 extend a hold: until u32 (s)
--           21 post to the credit line: kind u8 (1 repayment, 2 its reversal, 3 write-off, 4 transfer in, 5 transfer out, 6 recovery
--             of what was written off). Its order is the posting, under a key of its kind
--           22 grant a right: wanted amount f64 and number f64, percent u8 that must be left of each limit, percent u8 of what is left
--             that it may take, its lifetime f64 (ms), when the day of the command's windows ends f64 (ms), its weight
--           23 report a payment of a right: the weight u32 and f64 where the right is not known any more
--           24 release a right, 25 record that its holder is lost: nothing
--           and the order from the journal, packed like an order
--       4 event context, passed into the stream untouched; and after all commands the threshold policies, packed: u16 number
--         of the list of thresholds, maxima f64 of their limits: daily, monthly, yearly count, daily, monthly, yearly amount,
--         pending, weekly count, weekly amount; u8 number of thresholds, and each of them in percent u16, rising
-- Reply one string: for each command its record, a line feed, and the stream id of its event or ''; line feeds between
--       commands. Instead of a record: 1 u8 where another command of all or none was refused; 0 u8 and a text without line
--       feeds where this command failed: it has changed nothing; 2 u8 and the store's time f64 (ms) where the command, or
--       one of all or none, was not decided because its windows have not begun by that time.
--
-- Time     Holds, lifetimes and pacing use the command's time, within what the store's own allows: no later, and no more than
--          a minute earlier.
--
-- Account  version u8 (8; 9 with the part of what is seldom, 10 with a credit line, 13 with both), day u32, week u32, epochs u8 of
--          day, week, month and year, flags u8 (1 suspended, 2 something is pending), levels f64 and their list u16; then f64:
--          day, week, month, year each with amount and count; number of changes. The credit line: billing cycle u32,
--          exposure f64 (below 0 where more was repaid than is owed), unbilled f64. What is seldom, f64: refunded of day, week,
--          month, year; pending, paced until (us), suspended at (ms). Month and year are those of the day.
-- Merchant version u8 (1), flags u8 (1 suspended); then f64: suspended at (ms), number of changes. None where it never was
-- Levels   how many thresholds the usage of each limit has reached, 4 bits each, the first limit's lowest; and the
--          list that they are counted in, 0 where none is reached
-- Weight   what an amount counts against the amount limits: of more than 0 the basis points, rounded up, and the units per payment
-- Order    version u8 (6), day u32, week u32, epochs u8 of day, week, month and year, state u8, flags u8 (1 pinned, 2 has a tail,
--          4 an operation has given back quota, 8 the charge's outcome is unknown, 16 it is known at the gateway, 32 an
--          operation's outcome is or was unknown, 64 it is on the credit line, 128 it has a weight),
--          currency 3 chars, amount f64, expires at u32 (s), decision id 16 bytes, numbers u8 of live attempts, voided
--          attempts and operations, then 16 bytes for each attempt; on the credit line, the billing cycle u32 of the charge or
--          the latest capture; its weight: basis points u32, units per payment f64; tail: hold until u32 (s), expiry settles u8, settled
--          f64, refunded f64, and for each operation: kind u8, id 16 bytes, attempt 16 bytes, amount f64, day u32, week
--          u32, epochs u8 of day, week, month and year, decision id 16 bytes
-- Right    version u8 (1), day u32, week u32, epochs u8 of day, week, month and year, weight u32 and f64; f64: granted amount and
--          number, what is left of them, end (ms); u8 1 once it is known that its holder is lost; id of the decision 16 bytes
-- Record   an account: a plain charge was admitted, and left the account so; or
--          version u8 (12), code u8, flags u8 (1 replay, 2 usage changed, 4 another decision is returned, 8 the merchant is
--          suspended, 16 it conflicts with what was taken at first, 32 an outcome of the order was unknown before, 64 what counts is not the
--          amount), order state u8, hold until u32 (s), then f64: amount, wait ms, order amount, settled, refunded; the account as of the
--          command's windows, after it (for a command about a merchant an empty one, with the merchant's suspension and number
--          of changes); where it changed, the usage before f64: day, week, month, year each with amount, count, refunded;
--          pending, and with a credit line exposure and unbilled; the id of the decision that the caller gets, where it is another
--          one; what was taken at first, where it conflicts: amount f64, currency 3 chars; and what counts, where that is not the
--          amount: the weight, and the figure f64
-- Crossing levels and list before f64 u16, after f64 u16, and the threshold policy that they were counted by
-- Counted  the windows that the amount of a report was counted in: day u32, week u32, epochs u8 of day, week, month and year
-- Closed   for each window that was closed: period u8 (0 day, 1 month, 2 year, 3 week, 4 billing cycle), id u32, epoch u8, f64
--          amount, count, refunded; of a billing cycle the first day, and the amount that is unbilled
-- Previous Accounts of version 6 have what is seldom and no credit line, and records of version 7 contain one. They are read always;
--          in their place the present ones are written, unless servers of the previous format are running. These do not read
--          accounts and orders on a credit line, nor orders with a weight.
--
-- Every amount is a whole number below 2^53, which a Lua number holds exactly; none is ever turned into text. What costs
-- here is not arithmetic but every string that is made, every field that is packed and every table that grows: hence plain
-- charges, heads that are compared as one string, and tables that begin as copies of others with the right size.

-- Names in capitals are constants: crates/store/src/script.rs puts their values in place of them (codes, states, operations,
-- layouts, lengths, places of fields, flags and bounds, all from the Rust code), so that they cost nothing. Nor do sums and
-- products of them in brackets: Lua computes these when it reads the script.

-- A global is looked up by its name whenever it is used, a local is not.
local KEYS, ARGV, call, pcall, decode, encode = KEYS, ARGV, redis.call, redis.pcall, struct.unpack, struct.pack
local type, unpack, byte, sub, find, max, min = type, unpack, string.byte, string.sub, string.find, math.max, math.min

local mode, orders, accounts, merchants, streams, watches, store_ms = decode(CALL, ARGV[1])
if store_ms < 0 then
  local time = call('TIME')
  local us = time[2] + 0
  store_ms = time[1] * 1000 + (us - us % 1000) / 1000
end
store_ms = min(store_ms, NOW_MS_MAX)
local all_or_none, previous, plain_lifetime, plain_secs = mode % (2 * CALL_ALL_OR_NONE_FLAG) == CALL_ALL_OR_NONE_FLAG,
  mode >= CALL_ROLLING_UPGRADE_FLAG, ARGV[2], tonumber(ARGV[2])
local places = orders + accounts + merchants
local expiries = places + streams
local watches_from = #ARGV - watches
local commands = (watches_from - 2) / 2

-- The stored values, and the values after the commands so far: written at the end, in one place.
local stored = call('MGET', unpack(KEYS, 1, places))
local values, lifetimes = { unpack(stored) }, {}
-- Members of the expiry with the end of their holds, false for those to be removed, and the indexes of their keys.
local expiring, expiry_of = {}, {}
-- Each command is replaced by its record, and each context by its event's id, or '' without an event. With an event the
-- windows that it closes, how it crosses thresholds, and the windows of a report's right, where the account has others.
local replies, closing, crossing, counting = { unpack(ARGV, 3, watches_from) }, {}, {}, {}
-- For each command its stream; for each stream how many events wait in it, and why it cannot be written.
local stream_of, waiting, broken = { unpack(KEYS) }, {}, {}

for stream = 1, streams do
  local length = pcall('XLEN', KEYS[places + stream])
  if type(length) == 'table' then
    broken[stream], length = length.err, math.huge
  end
  waiting[stream] = length
end

