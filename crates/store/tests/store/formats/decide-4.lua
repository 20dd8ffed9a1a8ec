-- The decision rule over accounts and orders, in one atomic step. The other implementation is quota/src/decide;
-- the differential suite compares them reply by reply.
--
-- KEYS  the orders, the accounts and the merchants (strings), the event streams of their shards, and the expiry of the shards'
--       holds (sorted sets, in the order of the streams; may be left out where all commands are consumes). Each key is
--       here once; commands name theirs by index, from 1.
-- ARGV  1 packed little endian: u8 1 to do all or none, 0 to decide each command by itself; u16 numbers of orders, accounts,
--         merchants, streams and threshold policies; f64 the store's time in ms where a test moves it, -1 for Redis' own clock
--       2 the lifetime of plain charges' orders, seconds as text; then for each command
--       3 the command, packed:
--           op u8, indexes u16 of account (0 for none), order and merchant among the keys, of the stream among the streams and
--           of the threshold policy (0 for none), backlog maximum u32, amount f64 (-1 where none is named), maxima f64
--           of a charge (else 0): daily, monthly, yearly count, daily, monthly, yearly amount; now f64 (ms); the head of the
--           account (15 bytes) as it is if nothing is out of the ordinary: the windows of now, never reset, not suspended,
--           nothing pending, no threshold reached; the order (60 bytes) as a plain charge leaves it then; when the day of the
--           windows begins f64 (ms), order ttl u32 (s), flags u8 (1 dry, 2 refusals of a dry run are journalled, 4 a pace
--           follows, 8 last capture or reserved refund), refusal u8 (a code by which the policy refuses, else 0), replays u8
--           that are let through (255 for any number), length u16 of the order's history; by op:
--           0 plain consume: without flags, refusal and history, and of the lifetime above; its maxima are those up to which no
--             threshold is reached: the limits' own maxima f64, in their order
--           1 consume, 2 hold: for a hold the pending maximum f64, its lifetime u32 (s) and u8 (1 when expiry settles it);
--             with a pace f64: interval us, tolerance us, longest delay ms, and the six ceilings in the order of the maxima
--           3 void of an attempt, 4 void of a hold, 8 expiry, 11 suspend, 12 resume, 13 initialize, 14 roll, 15 suspend and
--             16 resume of a merchant as a whole: nothing
--           5 settle: id 16 bytes, over-capture percent u8 (255 where the gateway has captured already)
--           6 refund, 7 release: id 16 bytes, daily f64 and monthly f64 maximum
--           9 adjust: counter u8, change u8 (1 add, 2 subtract, 3 set), expected version f64 (-1 for any)
--           10 reset: windows u8 (1 day, 2 month, 4 year), when the day of the command's windows ends f64 (ms), expected
--             version f64 (-1 for any)
--           15 mark unknown: of what u8 (0 the charge, 1 a capture, 3 a refund, 4 the void), id 16 bytes
--           16 resolve: u8 (1 made, 0 not made)
--           17 suspend the merchant, 18 resume it: nothing
--           and the order from the journal, packed like an order
--       4 event context, passed into the stream untouched; and after all commands the threshold policies, packed: u16 number
--         of the list of thresholds, maxima f64 of their limits: daily, monthly, yearly count, daily, monthly, yearly amount,
--         pending; u8 number of thresholds, and each of them in percent u16, rising
-- Reply one string: for each command its record, a line feed, and the stream id of its event or ''; line feeds between
--       commands. Instead of a record: 1 u8 where another command of all or none was refused; 0 u8 and a text without line
--       feeds where this command failed: it has changed nothing; 2 u8 and the store's time f64 (ms) where the command, or
--       one of all or none, was not decided because its windows have not begun by that time.
--
-- Time     Holds, lifetimes and pacing use the command's time, within what the store's own allows: no later, and no more than
--          a minute earlier.
--
-- Account  version u8 (4), day u32, epochs u8 of day, month and year, flags u8 (1 suspended, 2 something is pending), levels u32
--          and their list u16; then f64: day, month, year each with amount and count; number of changes; refunded of day,
--          month, year; pending, paced until (us), suspended at (ms)
-- Merchant version u8 (1), flags u8 (1 suspended); then f64: suspended at (ms), number of changes. None where it never was
-- Levels   how many thresholds the usage of each limit has reached, 4 bits each, the first limit's lowest; and the
--          list that they are counted in, 0 where none is reached
-- Order    version u8 (4), day u32, epochs u8 of day, month and year, state u8, flags u8 (1 pinned, 2 has a tail,
--          4 an operation has given back quota, 8 the charge's outcome is unknown, 16 it is known at the gateway, 32 an
--          operation's outcome is or was unknown),
--          currency 3 chars, amount f64, expires at u32 (s), decision id 16 bytes, numbers u8 of live attempts, voided
--          attempts and operations, then 16 bytes for each attempt; tail: hold until u32 (s), expiry settles u8, settled
--          f64, refunded f64, and for each operation: kind u8, id 16 bytes, attempt 16 bytes, amount f64, day u32, epochs
--          u8 of day, month and year, decision id 16 bytes
-- Record   an account: a plain charge was admitted, and left the account so; or
--          version u8 (5), code u8, flags u8 (1 replay, 2 usage changed, 4 another decision is returned, 8 the merchant is
--          suspended, 16 it conflicts with what was taken at first, 32 an outcome of the order was unknown before), order
--          state u8, hold until u32 (s), then f64: amount, wait ms, order amount, settled, refunded; the account as of the
--          command's windows, after it (for a command about a merchant an empty one, with the merchant's suspension and number
--          of changes); where it changed, the usage before f64: day, month, year each with amount, count, refunded;
--          pending; the id of the decision that the caller gets, where it is another one; and what was taken at first,
--          where it conflicts: amount f64, currency 3 chars
-- Crossing levels and list before u32 u16, after u32 u16, and the threshold policy that they were counted by
-- Closed   for each window that was closed: period u8 (0 day, 1 month, 2 year), id u32, epoch u8, f64 amount, count,
--          refunded
--
-- Every amount is a whole number below 2^53, which a Lua number holds exactly; none is ever turned into text. What costs
-- here is not arithmetic but every string that is made, every field that is packed and every table that grows: hence plain
-- charges, heads that are compared as one string, and tables that begin as copies of others with the right size.

local COMMAND = '<BI2I2I2I2I2I4ddddddddc15c60'
local COMMAND_LEN = 154
local HEADED = '<c15dddddddc48'
local ACCOUNT = '<BI4BBBBI4I2ddddddddddddd'
local ACCOUNT_LEN = 119
local MERCHANT = '<BBdd'
local MERCHANT_LEN = 18
local RECORD = '<BBBBI4ddddd'
local ORDER_LEN = 44
local TAIL_LEN = 21
local OPERATION_LEN = 64
local PLAIN = 0
local SUSPEND_MERCHANT = 17
local FAILED, REFUSED, NOT_BEGUN = '\0', '\1', '\2'
-- Times after 2223 count as then, so that their microseconds stay exact.
local NOW_MS_MAX, LAG_MS_MAX = 8000000000000, 60000

-- A global is looked up by its name whenever it is used, a local is not.
local KEYS, ARGV, call, pcall, decode, encode = KEYS, ARGV, redis.call, redis.pcall, struct.unpack, struct.pack
local type, unpack, byte, sub, find, max, min = type, unpack, string.byte, string.sub, string.find, math.max, math.min

local together, orders, accounts, merchants, streams, watches, store_ms = decode('<BI2I2I2I2I2d', ARGV[1])
if store_ms < 0 then
  local time = call('TIME')
  local us = time[2] + 0
  store_ms = time[1] * 1000 + (us - us % 1000) / 1000
end
store_ms = min(store_ms, NOW_MS_MAX)
local all_or_none, plain_lifetime, plain_secs = together == 1, ARGV[2], tonumber(ARGV[2])
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
-- windows that it closes, and how it crosses thresholds.
local replies, closing, crossing = { unpack(ARGV, 3, watches_from) }, {}, {}
-- For each command its stream; for each stream how many events wait in it, and why it cannot be written.
local stream_of, waiting, broken = { unpack(KEYS) }, {}, {}

for stream = 1, streams do
  local length = pcall('XLEN', KEYS[places + stream])
  if type(length) == 'table' then
    broken[stream], length = length.err, math.huge
  end
  waiting[stream] = length
end

-- The position of the id in a list of ids, nil where it is not there.
local function position(list, id)
  local at = find(list, id, 1, true)
  while at and at % 16 ~= 1 do
    at = find(list, id, at + 1, true)
  end
  return at
end

-- The position of an operation in a list of them: by its id (field 1) or attempt (field 2) where one is given, of a kind for
-- which `wanted` is true.
local function operation(list, wanted, field, id)
  for at = 1, #list, OPERATION_LEN do
    local from = at + 16 * (field or 1) - 15
    if wanted[byte(list, at)] and (not id or sub(list, from, from + 15) == id) then
      return at
    end
  end
end

-- The first window limit that a charge would break. `max - amount` stays exact where `used + amount` would not.
local function breaks(amount, dc, mc, yc, da, ma, ya, dc_max, mc_max, yc_max, da_max, ma_max, ya_max)
  local DAILY_COUNT, MONTHLY_COUNT, YEARLY_COUNT, DAILY_AMOUNT, MONTHLY_AMOUNT, YEARLY_AMOUNT = 30, 31, 32, 33, 34, 35
  if dc > dc_max - 1 then return DAILY_COUNT end
  if mc > mc_max - 1 then return MONTHLY_COUNT end
  if yc > yc_max - 1 then return YEARLY_COUNT end
  if da > da_max - amount then return DAILY_AMOUNT end
  if ma > ma_max - amount then return MONTHLY_AMOUNT end
  if ya > ya_max - amount then return YEARLY_AMOUNT end
end

-- The month and year of a day's id: windows move forward together, so that a charge's are always those of its day.
local function month_and_year(day)
  return (day - day % 100) / 100, (day - day % 10000) / 10000
end

-- Whether an order has its format.
local function is_order(value)
  if #value < ORDER_LEN or byte(value) ~= 4 or byte(value, 9) > 4 then return false end
  local flags, live, voided, operations = byte(value, 10), byte(value, 42, 44)
  return #value == ORDER_LEN + 16 * (live + voided) + (flags % 4 >= 2 and TAIL_LEN + OPERATION_LEN * operations or 0)
end

-- How many thresholds usage has reached, and of which list. An unlimited one has none, and without usage none is reached.
local function marked_by(watch, ...)
  local UNLIMITED = 9007199254740991
  local list, m1, m2, m3, m4, m5, m6, m7, count, from = decode('<I2dddddddB', watch)
  local maxima, marks = { m1, m2, m3, m4, m5, m6, m7 }, 0
  for place = 7, 1, -1 do
    local used, maximum, level = select(place, ...), maxima[place], 0
    while level < count and used > 0 and maximum < UNLIMITED do
      local percent = decode('<I2', watch, from + 2 * level)
      -- The percentage of the maximum, rounded up, in two parts. Where they are not exact, no usage is that high.
      local rest = maximum % 100
      local rounded = rest * percent + 99
      if used < (maximum - rest) / 100 * percent + (rounded - rounded % 100) / 100 then break end
      level = level + 1
    end
    marks = marks * 16 + level
  end
  return marks, marks > 0 and list or 0
end

-- Whether a merchant has its format.
local function is_merchant(value)
  return #value == MERCHANT_LEN and byte(value) == 1
end

-- Whether a merchant's own state, where there is any, allows charges.
local function is_quiet(value)
  return not value or (is_merchant(value) and byte(value, 2) == 0)
end

-- Why a command cannot be decided.
local function failure(stream, account_at, order_at, merchant_at)
  local account, order, merchant = values[account_at], values[order_at], values[merchant_at]
  if broken[stream] then return broken[stream] end
  if account and (#account ~= ACCOUNT_LEN or byte(account) ~= 4) then
    return 'SLUICE account has another format'
  end
  if order and not is_order(order) then return 'SLUICE order has another format' end
  if merchant and not is_merchant(merchant) then return 'SLUICE merchant has another format' end
  -- MGET returns nil for what is not a string.
  if account_at == 0 then
    if not merchant and call('EXISTS', KEYS[merchant_at]) == 1 then return 'SLUICE merchant is no string' end
  elseif not account and call('EXISTS', KEYS[account_at]) == 1 then
    return 'SLUICE account is no string'
  end
end

-- The time that the rule uses: the command's, within what the store's own allows.
local function time_of(asked_ms)
  return min(max(asked_ms, store_ms - LAG_MS_MAX), store_ms)
end

-- Suspends a merchant as a whole, or takes its charges again; the record has no account.
local function decide_merchant(number, packed, suspends, merchant_at, stream, asked_ms)
  local APPLIED, FLAGS_AT = 4, COMMAND_LEN + 13
  local now_ms = time_of(asked_ms)
  local dry = byte(packed, FLAGS_AT) % 2 == 1
  local value = values[merchant_at]
  local suspended_at, changes, _ = 0, 0
  if value then _, _, suspended_at, changes = decode(MERCHANT, value) end
  local changed = (suspended_at > 0) ~= suspends
  if changed then suspended_at = suspends and max(now_ms, 1) or 0 end
  local flag = suspended_at > 0 and 1 or 0
  if changed and not dry then
    changes = changes + 1
    values[merchant_at] = encode(MERCHANT, 1, flag, suspended_at, changes)
    waiting[stream] = waiting[stream] + 1
  else
    replies[2 * number] = ''
  end
  replies[2 * number - 1] = encode(RECORD, 5, APPLIED, (changed and 0 or 1) + 8 * flag, 0, 0, 0, 0, 0, 0, 0)
    .. encode(ACCOUNT, 4, 0, 0, 0, 0, flag, 0, 0, 0, 0, 0, 0, 0, 0, changes, 0, 0, 0, 0, 0, suspended_at)
end

-- Decides a command of any kind: its record, its journal entry, and its changes. Returns whether it is refused.
local function decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked, dc_max,
  mc_max, yc_max, da_max, ma_max, ya_max, asked_ms, head, plain_order)
  local WINDOW, NAMES, REST = '<xI4', '<xxxxxxxxxxc3xxxxxxxxxxxxc16xxxc16', '<dI4BBBI2'
  local ORDER, TAIL = '<BI4BBBBBc3dI4c16BBB', '<I4Bdd'
  local OPERATION = '<Bc16c16dI4BBBc16'
  local BEFORE = '<dddddddddd'
  local CLOSED = '<BI4Bddd'

  local ATTEMPTS_LEN_MAX = 16 * 32
  local OPERATIONS_LEN_MAX = OPERATION_LEN * 32
  local REPORTED_LEN_MAX = OPERATION_LEN * 64
  local REPORTED, ANY_REPLAYS = 255, 255
  local AMOUNT_MAX = 9007199254740991
  local U32_MAX = 4294967295

  local CONSUME, HOLD, VOID_ATTEMPT, VOID, SETTLE, REFUND, RELEASE, EXPIRE = 1, 2, 3, 4, 5, 6, 7, 8
  local ADJUST, RESET, SUSPEND, RESUME, INITIALIZE, UNKNOWN, RESOLVE = 9, 10, 11, 12, 13, 15, 16
  local OPEN, CHARGED, HELD, SETTLED, STATE_VOIDED = 0, 1, 2, 3, 4
  local CAPTURE, RESERVATION, REFUNDED, RELEASED = 1, 2, 3, 4

  local ADMITTED, VOIDED, ATTEMPT_RELEASED, TOMBSTONED, APPLIED, BAD_AMOUNT = 0, 1, 2, 3, 4, 11
  local POLICY_MISSING, SUSPENDED = 20, 25
  local PENDING_AMOUNT, THROTTLED, REFUND_EXCEEDS_ORDER, REFUND_DAILY, REFUND_MONTHLY = 36, 37, 40, 41, 42
  local IDEMPOTENCY_CONFLICT, ATTEMPT_VOIDED, ORDER_UNKNOWN, ORDER_CLOSED = 50, 51, 52, 53
  local CAPTURE_EXCEEDS_HOLD, ORDER_FULL, VERSION_CONFLICT, REPLAY_REFUSED, BACKLOG_FULL = 54, 55, 56, 58, 61

  local day = decode(WINDOW, head)
  local own_day, month, year = day, month_and_year(day)
  local currency, decision_id, attempt = decode(NAMES, plain_order)
  local _, ttl, flags, refusal, replays_max, history_len, at = decode(REST, packed, COMMAND_LEN + 1)
  local now_ms = time_of(asked_ms)
  local history = history_len > 0 and sub(packed, -history_len) or ''
  local dry, noted, paced, marked = flags % 2 == 1, flags % 4 >= 2, flags % 8 >= 4, flags >= 8
  local now = (now_ms - now_ms % 1000) / 1000
  local amount = max(asked, 0)
  if op == PLAIN then
    op = CONSUME
    dc_max, mc_max, yc_max, da_max, ma_max, ya_max = decode('<dddddd', packed, at)
  end
  local watch = watch_at > 0 and ARGV[watches_from + watch_at]
  local account_value, order_value, merchant_value = values[account_at], values[order_at], values[merchant_at]

  -- The account as of now. A window rolls over when its id moves forward; an earlier id counts as the stored one.
  local de, me, ye = 0, 0, 0
  local da, dc, dr, ma, mc, mr, ya, yc, yr = 0, 0, 0, 0, 0, 0, 0, 0, 0
  local pending, paced_until, suspended_at, changes, marks, list = 0, 0, 0, 0, 0, 0
  local rolled, closed = false, ''
  if account_value then
    local _, sd
    _, sd, de, me, ye, _, marks, list, da, dc, ma, mc, ya, yc, changes, dr, mr, yr, pending, paced_until, suspended_at =
      decode(ACCOUNT, account_value)
    local sm, sy = month_and_year(sd)
    rolled = day > sd
    if rolled then
      if day > sd and sd > 0 then closed = encode(CLOSED, 0, sd, de, da, dc, dr) end
      if month > sm and sm > 0 then closed = closed .. encode(CLOSED, 1, sm, me, ma, mc, mr) end
      if year > sy and sy > 0 then closed = closed .. encode(CLOSED, 2, sy, ye, ya, yc, yr) end
    end
    if day > sd then de, da, dc, dr = 0, 0, 0, 0 else day = sd end
    if month > sm then me, ma, mc, mr = 0, 0, 0, 0 else month = sm end
    if year > sy then ye, ya, yc, yr = 0, 0, 0, 0 else year = sy end
    if rolled and marks > 0 then
      -- Levels reached in windows that are over are reset.
      for place = 0, 5 do
        local over = place % 3 == 0 or (place % 3 == 1 and month > sm) or (place % 3 == 2 and year > sy)
        local one = 16 ^ place
        if over then marks = marks - (marks - marks % one) / one % 16 * one end
      end
      if marks == 0 then list = 0 end
    end
  end
  local merchant_suspended = merchant_value and byte(merchant_value, 2) == 1
  local suspended = suspended_at > 0 or merchant_suspended
  local da0, dc0, dr0, ma0, mc0, mr0, ya0, yc0, yr0, pending0 = da, dc, dr, ma, mc, mr, ya, yc, yr, pending

  -- The order, unless it is unknown or has expired.
  local known, state, pinned, given_back = false, OPEN, false, false
  local o_currency, o_day, o_month, o_year, o_de, o_me, o_ye = currency, 0, 0, 0, 0, 0, 0
  local o_amount, o_decision, until_at, settles, settled, refunded = 0, decision_id, 0, 0, 0, 0
  local live, voided, operations = '', '', ''
  -- Whether the charge's outcome is unknown, whether the gateway is known to have it, whether an operation's was ever unknown.
  local unknown, made, doubted = false, false, false
  local any_time = false
  repeat
    if order_value then
      local _, d, e1, e2, e3, s, f, c3, a, expires, id, live_n, voided_n, operations_n, from =
        decode(ORDER, order_value)
      if any_time or expires > now then
        known, state, pinned, given_back = true, s, f % 2 == 1, f % 8 >= 4
        unknown, made, doubted = f % 16 >= 8, f % 32 >= 16, f >= 32
        o_currency, o_day, o_de, o_me, o_ye, o_amount, o_decision = c3, d, e1, e2, e3, a, id
        o_month, o_year = month_and_year(d)
        live = sub(order_value, from, from + 16 * live_n - 1)
        from = from + 16 * live_n
        if not any_time or voided == '' then
          voided = sub(order_value, from, from + 16 * voided_n - 1)
        end
        from = from + 16 * voided_n
        if f % 4 >= 2 then
          until_at, settles, settled, refunded, from = decode(TAIL, order_value, from)
          operations = sub(order_value, from, from + OPERATION_LEN * operations_n - 1)
        end
      end
    end
    -- An order that was never charged has only the attempts that are to be refused: those stay so.
    local ask_journal = (not known or (state == OPEN and o_amount == 0)) and not any_time and history ~= ''
    order_value, any_time = history, true
  until not ask_journal
  local was_unknown = unknown or doubted

  -- Deciding: sets these and the usage above.
  local code, answer_id, wait_ms, first_amount = nil, decision_id, 0, nil
  local replay, journal, account_changed, order_changed = false, true, false, false

  if op == CONSUME or op == HOLD then
    local charged = state == CHARGED or state == HELD or state == SETTLED
    local same = charged and o_amount == amount and o_currency == currency and (state ~= CHARGED) == (op == HOLD)
    -- Why the order takes no attempt, whatever it requests: not even the repetition of an admitted one.
    local barred
    if voided ~= '' and position(voided, attempt) then
      barred = ATTEMPT_VOIDED
    elseif given_back or state == STATE_VOIDED then
      barred = ORDER_CLOSED
    elseif charged and suspended then
      barred = SUSPENDED
    end
    if same and not barred and position(live, attempt) then
      -- The same attempt again: it gets the same answer, even when no more events are taken.
      code, replay, answer_id, journal = ADMITTED, true, o_decision, false
    elseif waiting[stream] >= backlog_max then
      code, journal = BACKLOG_FULL, false
    elseif barred then
      code = barred
    elseif same and replays_max < ANY_REPLAYS and (pinned or max(#live / 16, 1) > replays_max) then
      code = REPLAY_REFUSED
    elseif same then
      code, replay, answer_id, order_changed = ADMITTED, true, o_decision, true
      if #live < ATTEMPTS_LEN_MAX then live = live .. attempt else pinned = true end
    elseif charged then
      code = IDEMPOTENCY_CONFLICT
    elseif refusal == POLICY_MISSING then
      code = refusal
    elseif suspended then
      code = SUSPENDED
    elseif refusal ~= 0 then
      code = refusal
    else
      local pending_max, lifetime_secs, on_expiry
      if op == HOLD then
        pending_max, lifetime_secs, on_expiry, at = decode('<dI4B', packed, at)
      end
      local broken = breaks(amount, dc, mc, yc, da, ma, ya, dc_max, mc_max, yc_max, da_max, ma_max, ya_max)
      local interval, tolerance, delay_max
      if broken and paced then
        local c1, c2, c3, c4, c5, c6
        interval, tolerance, delay_max, c1, c2, c3, c4, c5, c6 = decode('<ddddddddd', packed, at)
        code = breaks(amount, dc, mc, yc, da, ma, ya, c1, c2, c3, c4, c5, c6)
      else
        code = broken
      end
      if not code and op == HOLD and pending > pending_max - amount then
        code = PENDING_AMOUNT
      end
      if not code and broken then
        -- The generic cell rate algorithm: a turn is taken, unless it is too far away.
        local now_us = now_ms * 1000
        local turn = max(paced_until, now_us)
        local wait = max(turn - now_us - tolerance, 0) + 999
        wait_ms = (wait - wait % 1000) / 1000
        if wait_ms > delay_max then code = THROTTLED else paced_until = turn + interval end
      end
      if not code then
        code, account_changed, order_changed = ADMITTED, true, true
        da, dc, ma, mc, ya, yc = da + amount, dc + 1, ma + amount, mc + 1, ya + amount, yc + 1
        known, state, pinned, given_back, live, operations = true, CHARGED, false, false, attempt, ''
        unknown, made, doubted = false, false, false
        o_currency, o_amount, o_decision, until_at, settles, settled, refunded = currency, amount, decision_id, 0, 0, 0, 0
        o_day, o_month, o_year, o_de, o_me, o_ye = day, month, year, de, me, ye
        if op == HOLD then
          state, until_at, settles, pending = HELD, min(now + lifetime_secs, U32_MAX), on_expiry, pending + amount
        end
      end
    end
  else
    -- Returns an amount to the windows that it was counted in, as far as they are still open.
    local function give_back(less, charge)
      if o_day == day and o_de == de then da, dc = max(da - less, 0), max(dc - charge, 0) end
      if o_month == month and o_me == me then ma, mc = max(ma - less, 0), max(mc - charge, 0) end
      if o_year == year and o_ye == ye then ya, yc = max(ya - less, 0), max(yc - charge, 0) end
    end

    -- The last attempt is gone: the order is open again, and its charge comes back.
    local function open_again()
      code, account_changed, order_changed, amount = VOIDED, true, true, o_amount
      give_back(o_amount, 1)
      pending = max(pending - (state == HELD and max(o_amount - settled, 0) or 0), 0)
      state, unknown = OPEN, false
    end

    local function add_operation(kind, id)
      operations = operations .. encode(OPERATION, kind, id, attempt, amount, day, de, me, ye, decision_id)
    end

    local charged = state == CHARGED or state == HELD or state == SETTLED
    local held = state == HELD and max(o_amount - settled, 0) or 0

    -- A capture or refund that was taken before: the same amount gets the first answer.
    local function repeated(place)
      local _, _, _, taken, _, _, _, _, first = decode(OPERATION, operations, place)
      if asked < 0 or asked == taken then
        code, replay, answer_id, journal, amount = APPLIED, true, first, false, taken
      else
        code, first_amount = IDEMPOTENCY_CONFLICT, taken
      end
    end

    -- The hold ends; what was captured of it stays.
    local function end_hold()
      code, account_changed, order_changed, amount = VOIDED, true, true, held
      give_back(held, settled == 0 and 1 or 0)
      pending = max(pending - held, 0)
      state = settled == 0 and STATE_VOIDED or SETTLED
      live, given_back = '', true
    end

    -- What ended the hold gets its answer again; a release does not also refund what was captured.
    local function released_before(place)
      local _, _, _, taken, _, _, _, _, first = decode(OPERATION, operations, place)
      code, replay, answer_id, journal, amount = VOIDED, true, first, false, taken
    end

    local end_id = attempt
    if op == RELEASE then
      end_id = sub(packed, at, at + 15)
      local place = operation(operations, { [RELEASED] = true }, 1, end_id)
      if place and o_currency == currency then
        released_before(place)
      end
      local holds = state == HELD or state == STATE_VOIDED
      op = holds and o_currency == currency and VOID or REFUND
    end

    if code then
      -- Answered already.
    elseif op == VOID_ATTEMPT then
      local reservation = operation(operations, { [RESERVATION] = true }, 2, attempt)
      local live_at = position(live, attempt)
      if not known then
        code, order_changed, voided = TOMBSTONED, true, attempt
      elseif position(voided, attempt) then
        code, replay, journal = charged and ATTEMPT_RELEASED or VOIDED, true, false
      elseif charged and o_currency ~= currency and (live_at or reservation) then
        code = IDEMPOTENCY_CONFLICT
      else
        order_changed = true
        if live_at then
          live = sub(live, 1, live_at - 1) .. sub(live, live_at + 16)
        end
        voided = voided .. attempt
        if #voided > ATTEMPTS_LEN_MAX then
          voided = sub(voided, 17)
        end
        if reservation then
          -- The gateway did not refund: removed from the counters that it was counted in, as far as their windows are still open.
          local _, _, _, taken, d, e1, e2, e3 = decode(OPERATION, operations, reservation)
          local m, y = month_and_year(d)
          operations = sub(operations, 1, reservation - 1) .. sub(operations, reservation + OPERATION_LEN)
          code, account_changed, amount, refunded = APPLIED, true, taken, max(refunded - taken, 0)
          if d == day and e1 == de then dr = max(dr - taken, 0) end
          if m == month and e2 == me then mr = max(mr - taken, 0) end
          if y == year and e3 == ye then yr = max(yr - taken, 0) end
        elseif not live_at then
          code = TOMBSTONED
        elseif live ~= '' or pinned or state == SETTLED or not charged or operations ~= '' then
          code = ATTEMPT_RELEASED
        else
          open_again()
        end
      end
    elseif op == REFUND and voided ~= '' and position(voided, attempt) then
      code = ATTEMPT_VOIDED
    elseif op <= EXPIRE and state == OPEN then
      code, journal = ORDER_UNKNOWN, op ~= EXPIRE
    elseif op <= EXPIRE and o_currency ~= currency then
      code, journal = IDEMPOTENCY_CONFLICT, op ~= EXPIRE
    elseif op == VOID then
      local place = operation(operations, { [RELEASED] = true })
      if state == HELD then
        end_hold()
        unknown, made = false, true
        add_operation(RELEASED, end_id)
      elseif place then
        released_before(place)
      elseif state == STATE_VOIDED then
        code, replay, journal = VOIDED, true, false
      else
        code = ORDER_CLOSED
      end
    elseif op == EXPIRE then
      if state ~= HELD then
        code, journal = ORDER_CLOSED, false
      elseif until_at > now then
        code, replay, journal = ADMITTED, true, false
      elseif settles == 0 then
        end_hold()
      else
        code, account_changed, order_changed, amount = APPLIED, true, true, held
        pending = max(pending - held, 0)
        settled, state = o_amount, SETTLED
      end
    elseif op == SETTLE then
      local id, percent = decode('<c16B', packed, at)
      local place = operation(operations, { [CAPTURE] = true }, 1, id)
      if place then
        repeated(place)
      elseif state ~= HELD and (percent < REPORTED or asked < 0 or state == CHARGED) then
        code = ORDER_CLOSED
      else
        if asked < 0 then amount = held end
        local more = max(amount - held, 0)
        -- In two parts, each of them exact.
        local rest = o_amount % 100
        local allowed = (o_amount - rest) / 100 * percent + (rest * percent - rest * percent % 100) / 100
        if amount == 0 then
          code = BAD_AMOUNT
        elseif #operations >= (percent < REPORTED and OPERATIONS_LEN_MAX or REPORTED_LEN_MAX)
          and not (marked and state == HELD) then
          code = ORDER_FULL
        elseif (more > allowed and percent < REPORTED) or da > AMOUNT_MAX - more or ma > AMOUNT_MAX - more
          or ya > AMOUNT_MAX - more or settled > AMOUNT_MAX - amount then
          code = CAPTURE_EXCEEDS_HOLD
        else
          code, account_changed, order_changed = APPLIED, true, true
          local left = max(held - amount, 0)
          local closes = marked or left == 0
          local returned = closes and left or 0
          add_operation(CAPTURE, id)
          unknown, made = false, true
          settled = settled + amount
          if closes then state = SETTLED end
          pending = max(pending - min(held, amount) - returned, 0)
          give_back(returned, 0)
          -- Money that was captured beyond the hold is consumed now, whatever the limits are.
          da, ma, ya = da + more, ma + more, ya + more
        end
      end
    elseif op == REFUND then
      local id, daily_max, monthly_max = decode('<c16dd', packed, at)
      local place = operation(operations, { [RESERVATION] = true, [REFUNDED] = true }, 1, id)
      if state == STATE_VOIDED then
        code = ORDER_CLOSED
      elseif place then
        local kind, _, owner, taken, d, e1, e2, e3, first = decode(OPERATION, operations, place)
        if kind == REFUNDED or (asked >= 0 and asked ~= taken) or (marked and owner == attempt) then
          repeated(place)
        else
          -- The latest attempt is the one whose failure cancels the refund: an earlier one's would end this one's too.
          local next_kind = marked and RESERVATION or REFUNDED
          operations = sub(operations, 1, place - 1)
            .. encode(OPERATION, next_kind, id, attempt, taken, d, e1, e2, e3, first)
            .. sub(operations, place + OPERATION_LEN)
          code, order_changed, amount = APPLIED, true, taken
          if marked then
            replay, answer_id = true, first
          else
            account_changed, given_back, unknown, made = true, true, false, true
            give_back(taken, 0)
          end
        end
      else
        local left = max((state == CHARGED and o_amount or settled) - refunded, 0)
        if asked < 0 then amount = left end
        if amount > left or left == 0 then
          code = REFUND_EXCEEDS_ORDER
        elseif amount == 0 then
          code = BAD_AMOUNT
        elseif #operations >= OPERATIONS_LEN_MAX then
          code = ORDER_FULL
        elseif dr > daily_max - amount then
          code = REFUND_DAILY
        elseif mr > monthly_max - amount or yr > AMOUNT_MAX - amount then
          code = REFUND_MONTHLY
        else
          code, account_changed, order_changed = APPLIED, true, true
          refunded = refunded + amount
          add_operation(marked and RESERVATION or REFUNDED, id)
          dr, mr, yr = dr + amount, mr + amount, yr + amount
          if not marked then
            given_back = true
            give_back(amount, 0)
            unknown, made = false, true
          end
        end
      end
    elseif op == UNKNOWN or op == RESOLVE then
      local what, id = decode('<Bc16', packed, at)
      local of_charge = op == UNKNOWN and what == 0
      if op == RESOLVE and what == 0 and known and state == OPEN then
        code, replay, journal = VOIDED, true, false
      elseif state == OPEN then
        code, journal = ORDER_UNKNOWN, op == RESOLVE and what == 0
      elseif o_currency ~= currency then
        code, journal = IDEMPOTENCY_CONFLICT, op == RESOLVE and what == 0
      elseif op == RESOLVE and what == 1 then
        -- Stored also where nothing was open, so that a late mark-unknown changes nothing.
        code, order_changed = APPLIED, not made
        replay, journal = not (unknown and order_changed), unknown and order_changed
        if order_changed then unknown, made = false, true end
      elseif op == RESOLVE then
        if made or operations ~= '' or not charged or state == SETTLED then
          code = ORDER_CLOSED
        else
          voided, live, pinned = sub(voided .. live, -ATTEMPTS_LEN_MAX), '', false
          open_again()
        end
      else
        if of_charge then amount = o_amount end
        local done = position(voided, attempt) or (of_charge and (made or unknown))
          or (what == CAPTURE and operation(operations, { [CAPTURE] = true }, 1, id))
          or (what == REFUNDED and operation(operations, { [REFUNDED] = true }, 1, id))
          or (what == RELEASED and (state == STATE_VOIDED or operation(operations, { [RELEASED] = true })))
        code = APPLIED
        if done then
          replay, journal = true, false
        else
          order_changed = true
          if of_charge then unknown = true else doubted = true end
        end
      end
    elseif op == ADJUST then
      local counter, change, expected = decode('<BBd', packed, at)
      local figures = { [0] = da, ma, ya, dc, mc, yc, dr, mr, yr, pending }
      local value = change == 1 and figures[counter] + amount or change == 2 and figures[counter] - amount or amount
      if expected >= 0 and expected ~= changes then
        code = VERSION_CONFLICT
      elseif value < 0 or value > AMOUNT_MAX then
        code = BAD_AMOUNT
      else
        code, account_changed, figures[counter] = APPLIED, true, value
        da, ma, ya, dc, mc, yc, dr, mr, yr, pending = figures[0], unpack(figures)
      end
    elseif op == RESET then
      local windows, until_ms, expected = decode('<Bdd', packed, at)
      if expected >= 0 and expected ~= changes then
        code = VERSION_CONFLICT
      else
        code, account_changed = APPLIED, true
        if day > own_day and store_ms < until_ms then
          -- The account is in windows that have not begun: it returns to the current ones, with what was counted since.
          local own_month, own_year = month_and_year(own_day)
          local epoch = 128 + changes % 100
          day, de = own_day, epoch
          if month > own_month then month, me = own_month, epoch end
          if year > own_year then year, ye = own_year, epoch end
          paced_until = min(paced_until, now_ms * 1000)
        end
        if windows % 2 == 1 then de, da, dc, dr = (de + 1) % 256, 0, 0, 0 end
        if windows % 4 >= 2 then me, ma, mc, mr = (me + 1) % 256, 0, 0, 0 end
        if windows >= 4 then ye, ya, yc, yr = (ye + 1) % 256, 0, 0, 0 end
      end
    elseif op == SUSPEND or op == RESUME then
      code = APPLIED
      if (suspended_at > 0) == (op == SUSPEND) then
        replay, journal = true, false
      else
        account_changed, suspended_at = true, op == SUSPEND and max(now_ms, 1) or 0
      end
    elseif op == INITIALIZE then
      code, account_changed, replay, journal = APPLIED, not account_value, account_value and true, not account_value
    else
      local marked, of_list = marks, list
      if watch then marked, of_list = marked_by(watch, dc, mc, yc, da, ma, ya, pending) end
      local changed = account_value and (rolled or marked ~= marks or of_list ~= list) or false
      code, account_changed, replay, journal = APPLIED, changed, not changed, changed
    end
  end

  -- When no more events are taken, refusals and tombstones are not journalled either.
  if journal and (code > APPLIED or code == TOMBSTONED) and waiting[stream] >= backlog_max then
    journal = false
    if code > APPLIED then code = BACKLOG_FULL end
  end
  if account_changed and not dry then
    changes = changes + 1
  end
  local crossed
  if account_changed and watch then
    local marked, of_list = marked_by(watch, dc, mc, yc, da, ma, ya, pending)
    if marked ~= marks or of_list ~= list then
      crossed = not dry and encode('<I4I2I4I2', marks, list, marked, of_list) .. watch or nil
      marks, list = marked, of_list
    end
  end
  local refused = code > APPLIED
  if dry then
    journal = noted and journal and refused
  end
  local account = account_value
  if account_changed or rolled or not account_value then
    account = encode(ACCOUNT, 4, day, de, me, ye, (suspended_at > 0 and 1 or 0) + (pending > 0 and 2 or 0), marks, list, da,
      dc, ma, mc, ya, yc, changes, dr, mr, yr, pending, paced_until, suspended_at)
  end
  local before = account_changed and encode(BEFORE, da0, dc0, dr0, ma0, mc0, mr0, ya0, yc0, yr0, pending0) or ''
  local another = answer_id ~= decision_id
  local record_flags = (replay and 1 or 0) + (account_changed and 2 or 0) + (another and 4 or 0)
    + (merchant_suspended and 8 or 0) + (code == IDEMPOTENCY_CONFLICT and 16 or 0) + (was_unknown and 32 or 0)
  local first = code == IDEMPOTENCY_CONFLICT and encode('<dc3', first_amount or o_amount, o_currency) or ''
  local record = encode(RECORD, 5, code, record_flags, state, until_at, amount, wait_ms, o_amount, settled, refunded)
    .. account .. before .. (another and answer_id or '') .. first
  replies[2 * number - 1] = record
  if journal then
    waiting[stream] = waiting[stream] + 1
    closing[number] = account_changed and not dry and closed ~= '' and closed or nil
    crossing[number] = crossed
  else
    replies[2 * number] = ''
  end
  if account_changed and not dry then
    values[account_at] = account
  end
  if order_changed and not dry then
    local expires = min((state == HELD and max(now, until_at) or now) + ttl, U32_MAX)
    local has_tail = until_at > 0 or settled > 0 or refunded > 0 or operations ~= ''
    local order_flags = (pinned and 1 or 0) + (has_tail and 2 or 0) + (given_back and 4 or 0) + (unknown and 8 or 0)
      + (made and 16 or 0) + (doubted and 32 or 0)
    local fixed = encode(ORDER, 4, o_day, o_de, o_me, o_ye, state, order_flags, o_currency, o_amount, expires, o_decision,
      #live / 16, #voided / 16, #operations / OPERATION_LEN)
    local tail = has_tail and encode(TAIL, until_at, settles, settled, refunded) .. operations or ''
    values[order_at] = fixed .. live .. voided .. tail
    -- No end after 2106 can be stored: such an order expires at once, and is kept for as long as another.
    local secs = expires > now and expires - now or ttl
    lifetimes[order_at] = secs ~= plain_secs and string.format('%.0f', secs) or nil
  end
  if not dry and ((order_changed and until_at > 0) or (op == EXPIRE and not order_changed and code ~= ADMITTED)) then
    -- An order that an expiry finds unknown, ended or of another currency is not one of the holds listed here.
    local merchant, order_no = string.match(KEYS[order_at], '^[^}]*}:o:([^:]*):(.*)$')
    local member = merchant .. ':' .. (order_changed and o_currency or currency) .. ':' .. order_no
    expiring[member], expiry_of[member] = order_changed and state == HELD and until_at or false, expiries + stream
  end
  return refused
end

for number = 1, commands do
  local packed = replies[2 * number - 1]
  local op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked, dc_max, mc_max, yc_max, da_max, ma_max,
    ya_max, asked_ms, head, plain_order = decode(COMMAND, packed)
  local account_value, order_value = values[account_at], values[order_at]
  stream_of[number] = stream

  -- A plain charge of a new order on an account without anything out of the ordinary: only the usage is computed.
  local plain = op == PLAIN and account_value and not order_value and #account_value == ACCOUNT_LEN
    and waiting[stream] < backlog_max and asked_ms <= store_ms and asked_ms >= store_ms - LAG_MS_MAX
    and is_quiet(values[merchant_at])
  if plain then
    local own_head, da, dc, ma, mc, ya, yc, changes, rest = decode(HEADED, account_value)
    plain = own_head == head
      and not breaks(asked, dc, mc, yc, da, ma, ya, dc_max, mc_max, yc_max, da_max, ma_max, ya_max)
    if plain then
      account_value = encode(HEADED, head, da + asked, dc + 1, ma + asked, mc + 1, ya + asked, yc + 1, changes + 1, rest)
      values[account_at], values[order_at], replies[2 * number - 1] = account_value, plain_order, account_value
      waiting[stream] = waiting[stream] + 1
    end
  end

  local early = not plain and decode('<d', packed, COMMAND_LEN + 1) > store_ms
  local failed = not plain and not early and failure(stream, account_at, order_at, merchant_at)
  if early and all_or_none then
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = NOT_BEGUN .. encode('<d', store_ms), ''
    end
    break
  elseif early then
    replies[2 * number - 1], replies[2 * number] = NOT_BEGUN .. encode('<d', store_ms), ''
  elseif failed and all_or_none then
    return redis.error_reply(failed)
  elseif failed then
    replies[2 * number - 1], replies[2 * number] = FAILED .. failed, ''
  elseif op >= SUSPEND_MERCHANT then
    decide_merchant(number, packed, op == SUSPEND_MERCHANT, merchant_at, stream, asked_ms)
  elseif not plain and decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, backlog_max, asked,
    dc_max, mc_max, yc_max, da_max, ma_max, ya_max, asked_ms, head, plain_order) and all_or_none then
    -- Nothing is done. The refusal is journalled; the others get the code of a refused batch.
    local record, event = replies[2 * number - 1], replies[2 * number]
    values, expiring = { unpack(stored) }, {}
    for other = 1, commands do
      replies[2 * other - 1], replies[2 * other] = REFUSED, ''
    end
    replies[2 * number - 1], replies[2 * number] = record, event
    break
  end
end

-- Holds are listed first, then come the events: if Redis refuses either, as with a full memory, nothing of that shard was
-- changed. A listed hold that does not exist is skipped.
for member, ends_at in pairs(expiring) do
  local key = expiry_of[member]
  local done = ends_at and pcall('ZADD', KEYS[key], ends_at, member)
  if type(done) == 'table' then broken[key - expiries] = done.err end
end
for number = 1, commands do
  local record, context, closed, crossed = replies[2 * number - 1], replies[2 * number], closing[number], crossing[number]
  local stream = stream_of[number]
  if context ~= '' and not broken[stream] then
    local id
    if closed or crossed then
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record, 'w', closed or '', 'a', crossed or '')
    else
      id = pcall('XADD', KEYS[places + stream], '0-*', 'c', context, 'd', record)
    end
    if type(id) == 'table' then broken[stream] = id.err end
    replies[2 * number] = id
  end
end
if next(broken) then
  for number = 1, commands do
    local why = broken[stream_of[number]]
    if why then
      local _, account_at, order_at, merchant_at = decode(COMMAND, ARGV[2 * number + 1])
      values[account_at], values[order_at] = stored[account_at], stored[order_at]
      values[merchant_at] = stored[merchant_at]
      replies[2 * number - 1], replies[2 * number] = FAILED .. why, ''
    end
  end
end

local changed, size = { unpack(KEYS) }, 0
for place = orders + 1, places do
  if values[place] ~= stored[place] then
    changed[size + 1], changed[size + 2], size = KEYS[place], values[place], size + 2
  end
end
if size > 0 then
  call('MSET', unpack(changed, 1, size))
end
for place = 1, orders do
  if values[place] ~= stored[place] then
    call('SET', KEYS[place], values[place], 'EX', lifetimes[place] or plain_lifetime)
  end
end
for member, ends_at in pairs(expiring) do
  local key = expiry_of[member]
  if not ends_at and not broken[key - expiries] then
    -- What stays listed because of an error is skipped too.
    pcall('ZREM', KEYS[key], member)
  end
end
return table.concat(replies, '\n')
