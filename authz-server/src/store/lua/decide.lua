-- The decision rule over one account and one order, in one atomic step. The other implementation is quota/src/decide.rs;
-- the differential suite compares them reply by reply.
--
-- KEYS  1 account (string), 2 order (string), 3 event stream of the shard; all of one hash tag
-- ARGV  1 command, packed little endian:
--           op u8 (1 consume, 2 void), refusal u8 (a code by which the policy refuses, else 0), currency 3 chars,
--           day u32, month u32, year u32 (window ids of now), now u32 (s), order ttl u32 (s), backlog maximum u32,
--           attempt 16 bytes, decision id 16 bytes, amount f64,
--           maxima f64: daily, monthly, yearly count, daily, monthly, yearly amount
--       2 event context, passed into the stream untouched
-- Reply 1 record, 2 decision id that the caller is told (16 bytes), 3 stream id of the event, or '' where there is none
--
-- Account  version u8 (1), day u32, month u32, year u32, then f64: day amount, day count, month amount, month count,
--          year amount, year count, number of changes
-- Order    version u8 (1), flags u8 (1 charged, 2 pinned), currency 3 chars, day u32, month u32, year u32, amount f64,
--          expires at u32 (s), decision id 16 bytes, live attempts u8, voided attempts u8, then 16 bytes each
-- Record   version u8 (1), code u8, flags u8 (1 replay), pad, day u32, month u32, year u32, then f64 for day, month and
--          year: amount before, amount after, count before, count after; number of changes f64
--
-- Every amount is a whole number below 2^53, which a Lua number holds exactly; none is ever turned into text.

local ACCOUNT = '<BI4I4I4ddddddd'
local ORDER = '<BBc3I4I4I4dI4c16BB'
local RECORD = '<BBBxI4I4I4ddddddddddddd'
local ATTEMPTS_MAX = 32

local ADMITTED, VOIDED, ATTEMPT_RELEASED, TOMBSTONED = 0, 1, 2, 3
local DAILY_COUNT, MONTHLY_COUNT, YEARLY_COUNT, DAILY_AMOUNT, MONTHLY_AMOUNT, YEARLY_AMOUNT = 30, 31, 32, 33, 34, 35
local IDEMPOTENCY_CONFLICT, ATTEMPT_VOIDED, BACKLOG_FULL = 50, 51, 61

local op, refusal, currency, day, month, year, now, ttl, backlog_max, attempt, decision_id, amount,
  day_count_max, month_count_max, year_count_max, day_amount_max, month_amount_max, year_amount_max =
  struct.unpack('<BBc3I4I4I4I4I4I4c16c16ddddddd', ARGV[1])
local CONSUME = 1

local stored = redis.call('MGET', KEYS[1], KEYS[2])

-- The account as of now. A window rolls over when its id moves forward; an earlier id counts as the stored one.
local da, dc, ma, mc, ya, yc, changes = 0, 0, 0, 0, 0, 0, 0
if stored[1] then
  local version, sd, sm, sy
  version, sd, sm, sy, da, dc, ma, mc, ya, yc, changes = struct.unpack(ACCOUNT, stored[1])
  if version ~= 1 then
    return redis.error_reply('SLUICE account has unknown format ' .. version)
  end
  if day > sd then da, dc = 0, 0 else day = sd end
  if month > sm then ma, mc = 0, 0 else month = sm end
  if year > sy then ya, yc = 0, 0 else year = sy end
end
local da2, dc2, ma2, mc2, ya2, yc2 = da, dc, ma, mc, ya, yc

-- The order, unless it is unknown or its time is over.
local known, charged, pinned = false, false, false
local o_currency, o_day, o_month, o_year, o_amount, o_decision = currency, 0, 0, 0, 0, decision_id
local live, voided = '', ''
if stored[2] then
  local version, flags, c3, d, m, y, a, expires, id, live_n, voided_n, at = struct.unpack(ORDER, stored[2])
  if version ~= 1 then
    return redis.error_reply('SLUICE order has unknown format ' .. version)
  end
  if expires > now then
    known, charged, pinned = true, flags % 2 == 1, flags >= 2
    o_currency, o_day, o_month, o_year, o_amount, o_decision = c3, d, m, y, a, id
    live = string.sub(stored[2], at, at + 16 * live_n - 1)
    voided = string.sub(stored[2], at + 16 * live_n, at + 16 * (live_n + voided_n) - 1)
  end
end

-- Where the id stands in a list of ids, nil where it does not.
local function position(list, id)
  local at = string.find(list, id, 1, true)
  while at and at % 16 ~= 1 do
    at = string.find(list, id, at + 1, true)
  end
  return at
end

-- Deciding: sets these and the figures above; writing comes after, in one place.
local code, told = nil, decision_id
local replay, journal, account_changed, order_changed = false, true, false, false

if op == CONSUME then
  local same = charged and o_amount == amount and o_currency == currency
  if same and position(live, attempt) then
    -- The very attempt again: it is told what it was told, even when no more events are taken.
    code, replay, told, journal = ADMITTED, true, o_decision, false
  elseif redis.call('XLEN', KEYS[3]) >= backlog_max then
    code, journal = BACKLOG_FULL, false
  elseif voided ~= '' and position(voided, attempt) then
    code = ATTEMPT_VOIDED
  elseif same then
    code, replay, told, order_changed = ADMITTED, true, o_decision, true
    if #live < 16 * ATTEMPTS_MAX then live = live .. attempt else pinned = true end
  elseif charged then
    code = IDEMPOTENCY_CONFLICT
  elseif refusal ~= 0 then
    code = refusal
  -- `max - amount` stays exact where `used + amount` would not.
  elseif dc > day_count_max - 1 then
    code = DAILY_COUNT
  elseif mc > month_count_max - 1 then
    code = MONTHLY_COUNT
  elseif yc > year_count_max - 1 then
    code = YEARLY_COUNT
  elseif da > day_amount_max - amount then
    code = DAILY_AMOUNT
  elseif ma > month_amount_max - amount then
    code = MONTHLY_AMOUNT
  elseif ya > year_amount_max - amount then
    code = YEARLY_AMOUNT
  else
    code, account_changed, order_changed = ADMITTED, true, true
    da2, dc2, ma2, mc2, ya2, yc2 = da + amount, dc + 1, ma + amount, mc + 1, ya + amount, yc + 1
    charged, pinned, live = true, false, attempt
    o_currency, o_day, o_month, o_year, o_amount, o_decision = currency, day, month, year, amount, decision_id
  end
elseif not known then
  code, order_changed, voided = TOMBSTONED, true, attempt
elseif position(voided, attempt) then
  code, replay, journal = charged and ATTEMPT_RELEASED or VOIDED, true, false
elseif charged and o_currency ~= currency and position(live, attempt) then
  code = IDEMPOTENCY_CONFLICT
else
  order_changed = true
  local at = position(live, attempt)
  if at then
    live = string.sub(live, 1, at - 1) .. string.sub(live, at + 16)
  end
  voided = voided .. attempt
  if #voided > 16 * ATTEMPTS_MAX then
    voided = string.sub(voided, 17)
  end
  code = at and ATTEMPT_RELEASED or TOMBSTONED
  if at and live == '' and not pinned then
    code, account_changed, charged = VOIDED, true, false
    -- Back into the windows that the charge went into, as far as they are still open.
    if o_day == day then da2, dc2 = math.max(da - o_amount, 0), math.max(dc - 1, 0) end
    if o_month == month then ma2, mc2 = math.max(ma - o_amount, 0), math.max(mc - 1, 0) end
    if o_year == year then ya2, yc2 = math.max(ya - o_amount, 0), math.max(yc - 1, 0) end
  end
end

-- The event comes first: should Redis refuse it, as with a full memory, nothing was changed.
if account_changed then
  changes = changes + 1
end
local record = struct.pack(RECORD, 1, code, replay and 1 or 0, day, month, year,
  da, da2, dc, dc2, ma, ma2, mc, mc2, ya, ya2, yc, yc2, changes)
local event = journal and redis.call('XADD', KEYS[3], '0-*', 'c', ARGV[2], 'd', record) or ''
if account_changed then
  redis.call('SET', KEYS[1], struct.pack(ACCOUNT, 1, day, month, year, da2, dc2, ma2, mc2, ya2, yc2, changes))
end
if order_changed then
  local flags = (charged and 1 or 0) + (pinned and 2 or 0)
  local head = struct.pack(ORDER, 1, flags, o_currency, o_day, o_month, o_year, o_amount, now + ttl, o_decision,
    #live / 16, #voided / 16)
  redis.call('SET', KEYS[2], head .. live .. voided, 'EX', ttl)
end
return { record, told, event }
