-- What a plain charge needs of the rule.

-- The first window limit that a charge would break. `max - amount` stays exact where `used + amount` would not.
local function breaks(amount, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max)
  if dc > dc_max - 1 then return DAILY_COUNT end
  if wc > wc_max - 1 then return WEEKLY_COUNT end
  if mc > mc_max - 1 then return MONTHLY_COUNT end
  if yc > yc_max - 1 then return YEARLY_COUNT end
  if da > da_max - amount then return DAILY_AMOUNT end
  if wa > wa_max - amount then return WEEKLY_AMOUNT end
  if ma > ma_max - amount then return MONTHLY_AMOUNT end
  if ya > ya_max - amount then return YEARLY_AMOUNT end
end

-- Whether a merchant has its format.
local function is_merchant(value)
  return #value == MERCHANT_LEN and byte(value) == MERCHANT_FORMAT
end

-- Whether a merchant's own state, where there is any, allows charges.
local function is_quiet(value)
  return not value or (is_merchant(value) and byte(value, MERCHANT_FLAGS_AT) == 0)
end

-- The length of an account by its version, nil for another version.
local function account_len(version)
  if version == ACCOUNT_FORMAT then return USAGE_LEN end
  if version == FULL_FORMAT or version == PREVIOUS_FORMAT then return (USAGE_LEN + SELDOM_LEN) end
  if version == CREDIT_FORMAT then return (USAGE_LEN + CREDIT_LEN) end
  if version == FULL_CREDIT_FORMAT then return (USAGE_LEN + CREDIT_LEN + SELDOM_LEN) end
end

-- All that follows is for other commands. The script is run anew by every call, and so each of its functions is made anew: those
-- that a plain charge does not need are made by the first command that is not one, by this function.
local function rule()

-- Rules and formats that more than one command needs.

-- The position of the id in a list of ids, nil where it is not there.
local function position(list, id)
  local at = find(list, id, 1, true)
  while at and at % ID_LEN ~= 1 do
    at = find(list, id, at + 1, true)
  end
  return at
end

-- The position of an operation in a list of them: of a kind for which `wanted` is true, and where an id is given, with that id
-- at this place of the operation (`OPERATION_ID_AT` or `OPERATION_ATTEMPT_AT`).
local function operation(list, wanted, place, id)
  for at = 1, #list, OPERATION_LEN do
    local from = id and at + place - 1
    if wanted[byte(list, at)] and (not id or sub(list, from, from + (ID_LEN - 1)) == id) then
      return at
    end
  end
end

-- The month and year of a day's id: windows move forward together, so that a charge's are always those of its day.
local function month_and_year(day)
  return (day - day % 100) / 100, (day - day % 10000) / 10000
end

-- Whether an order has its format.
local function is_order(value)
  if byte(value) ~= ORDER_FORMAT or #value < ORDER_LEN or byte(value, ORDER_STATE_AT) > STATE_VOIDED then return false end
  local flags, live, voided, operations = byte(value, ORDER_STATE_AT + 1), byte(value, ORDER_LEN - 2, ORDER_LEN)
  local has_tail = flags % (2 * ORDER_HAS_TAIL_FLAG) >= ORDER_HAS_TAIL_FLAG
  local on_credit = flags % (2 * ORDER_ON_CREDIT_FLAG) >= ORDER_ON_CREDIT_FLAG
  return #value == ORDER_LEN + ID_LEN * (live + voided) + (on_credit and ORDER_CYCLE_LEN or 0)
    + (flags >= ORDER_WEIGHED_FLAG and WEIGHT_LEN or 0) + (has_tail and TAIL_LEN + OPERATION_LEN * operations or 0)
end

-- What an amount counts by its weight. The share is computed in two parts: where it is not exact, it is above the maximum anyway.
local function counted(amount, bp, units)
  if amount <= 0 then return 0 end
  local rest = amount % WEIGHT_WHOLE_BP
  local share = rest * bp + (WEIGHT_WHOLE_BP - 1)
  return min((amount - rest) / WEIGHT_WHOLE_BP * bp + (share - share % WEIGHT_WHOLE_BP) / WEIGHT_WHOLE_BP + units, AMOUNT_MAX)
end

-- The code of a charge that would raise the exposure above the limit.
local function exceeds(exposure, amount, limit, uncapped)
  if exposure > limit - amount then return exposure > uncapped - amount and CREDIT_EXHAUSTED or CREDIT_RESTRICTED end
end

-- Hundredths of an amount, rounded down, in two parts.
local function percent_of(amount, percent)
  local rest = amount % 100
  local part = rest * percent
  return (amount - rest) / 100 * percent + (part - part % 100) / 100
end

-- What a right may take of a limit: a share of what is left, and half of what is left above the threshold.
local function room(maximum, used, above, share)
  local left = maximum - used
  local free = max(left - percent_of(maximum, above), 0)
  return min(percent_of(left, share), (free - free % 2) / 2)
end

-- How many thresholds usage has reached, and of which list. An unlimited one has none, and without usage none is reached.
-- Usage is given in the order of the limits' places: `USED_BY_PLACE` stands for the variables of `decide` in that order.
local function marked_by(watch, ...)
  local list, m1, m2, m3, m4, m5, m6, m7, m8, m9, count, from = decode(THRESHOLD_POLICY, watch)
  local maxima, marks = { m1, m2, m3, m4, m5, m6, m7, m8, m9 }, 0
  for place = LEVELS, 1, -1 do
    local used, maximum, level = select(place, ...), maxima[place], 0
    while level < count and used > 0 and maximum < AMOUNT_MAX do
      local percent = decode('<I2', watch, from + 2 * level)
      -- The percentage of the maximum, rounded up, in two parts. Where they are not exact, no usage is that high.
      local rest = maximum % 100
      local rounded = rest * percent + 99
      if used < (maximum - rest) / 100 * percent + (rounded - rounded % 100) / 100 then break end
      level = level + 1
    end
    marks = marks * LEVEL_BASE + level
  end
  return marks, marks > 0 and list or 0
end

-- The levels without the one at a place.
local function without_level(marks, place)
  local one = LEVEL_BASE ^ place
  return marks - (marks - marks % one) / one % LEVEL_BASE * one
end

-- The levels without those reached in windows that are over.
local function open_levels(marks, day_over, week_over, month_over, year_over)
  if day_over then marks = without_level(without_level(marks, DAILY_COUNT_PLACE), DAILY_AMOUNT_PLACE) end
  if week_over then marks = without_level(without_level(marks, WEEKLY_COUNT_PLACE), WEEKLY_AMOUNT_PLACE) end
  if month_over then marks = without_level(without_level(marks, MONTHLY_COUNT_PLACE), MONTHLY_AMOUNT_PLACE) end
  if year_over then marks = without_level(without_level(marks, YEARLY_COUNT_PLACE), YEARLY_AMOUNT_PLACE) end
  return marks
end

-- An account, its credit line text already; in a rolling upgrade as servers of the previous format have it.
local function packed_account(old, credit, day, week, de, we, me, ye, flags, marks, list, da, dc, wa, wc, ma, mc, ya, yc, changes,
  dr, wr, mr, yr, pending, paced_until, suspended_at)
  local version, seldom = credit ~= '' and CREDIT_FORMAT or ACCOUNT_FORMAT, ''
  if old or dr + wr + mr + yr + pending + paced_until + suspended_at > 0 then
    version = old and PREVIOUS_FORMAT or credit ~= '' and FULL_CREDIT_FORMAT or FULL_FORMAT
    seldom = encode(SELDOM, dr, wr, mr, yr, pending, paced_until, suspended_at)
  end
  return encode(USAGE, version, day, week, de, we, me, ye, flags, marks, list, da, dc, wa, wc, ma, mc, ya, yc, changes)
    .. credit .. seldom
end

-- An order: its credit line, weight, tail and operations are text already, where it has them.
local function packed_order(day, week, de, we, me, ye, state, flags, currency, amount, expires, decision_id, live, voided, credit,
  weight, tail, operations)
  return encode(ORDER, ORDER_FORMAT, day, week, de, we, me, ye, state, flags, currency, amount, expires, decision_id, #live / ID_LEN,
    #voided / ID_LEN, #operations / OPERATION_LEN) .. live .. voided .. credit .. weight .. tail .. operations
end

-- A stored window for the event that closes it, or '' while the window of now is not a later one.
local function closed_window(period, now_id, id, epoch, amount, count, refunded)
  return now_id > id and id > 0 and encode(CLOSED, period, id, epoch, amount, count, refunded) or ''
end

-- Says that a value has a format that is neither a present one nor the one before.
local function unknown_format(what, value)
  return 'SLUICE ' .. what .. ' has another format (' .. (byte(value) or 'empty') .. '): upgrade by one release at a time'
end

-- Why a command cannot be decided.
local function failure(stream, account_at, order_at, merchant_at, right_at)
  local account, order, merchant, right = values[account_at], values[order_at], values[merchant_at], values[right_at]
  if broken[stream] then return broken[stream] end
  if account and #account ~= account_len(byte(account)) then return unknown_format('account', account) end
  if order and not is_order(order) then return unknown_format('order', order) end
  if merchant and not is_merchant(merchant) then return unknown_format('merchant', merchant) end
  if right and (#right ~= RIGHT_LEN or byte(right) ~= RIGHT_FORMAT) then return unknown_format('right', right) end
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

