-- The function `decide`, in five parts. This one reads the account and the order.
--
-- Every function costs what making it costs, once a call: a call with one command ran some 0.5 % more instructions for each. So only
-- what windows and formats have in common is apart, in rules.lua. The rules of charges and operations stay in here. They share some
-- hundred variables, and a function that changes those is a closure: one is made for every command, with every variable that it
-- shares. The few of operations.lua are not free: with a fifth of the variables outside, the script ran 6 % fewer instructions.

-- Decides a command of any kind: its record, its journal entry, and its changes. Returns whether it is refused.
local function decide(number, packed, op, account_at, order_at, merchant_at, stream, watch_at, right_at, backlog_max, asked, dc_max,
  wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max, asked_ms, head, plain_order)
  local day, week = decode(WINDOWS, head)
  local own_day, own_week, month, year = day, week, month_and_year(day)
  local currency, decision_id, attempt = decode(NAMES, plain_order)
  local terms_cycle, _, ttl, flags, refusal, replays_max, history_len, at = decode(REST, packed, COMMAND_LEN + 1)
  local now_ms = time_of(asked_ms)
  local history = history_len > 0 and sub(packed, -history_len) or ''
  local dry = flags % (2 * COMMAND_DRY_FLAG) == COMMAND_DRY_FLAG
  local noted = flags % (2 * COMMAND_JOURNALED_FLAG) >= COMMAND_JOURNALED_FLAG
  local paced = flags % (2 * COMMAND_PACED_FLAG) >= COMMAND_PACED_FLAG
  local marked = flags % (2 * COMMAND_LAST_OR_RESERVED_FLAG) >= COMMAND_LAST_OR_RESERVED_FLAG
  local now = (now_ms - now_ms % 1000) / 1000
  local amount = max(asked, 0)
  local credit_max, uncapped_max = AMOUNT_MAX, AMOUNT_MAX
  if terms_cycle > 0 then
    credit_max, uncapped_max, at = decode(CREDIT_TERMS, packed, at)
  end
  -- The weight of a charge, nil where its amount counts as it is; and the figure that counts, nil where it is the amount.
  local bp, units, counts
  if flags >= COMMAND_WEIGHED_FLAG then
    bp, units, at = decode(WEIGHT, packed, at)
    counts = counted(amount, bp, units)
  end
  if op == PLAIN or op == PLAIN_CREDIT then
    op = CONSUME
    dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max, ya_max = decode(MAXIMA, packed, at)
  end
  local watch = watch_at > 0 and ARGV[watches_from + watch_at]
  local account_value, order_value, merchant_value = values[account_at], values[order_at], values[merchant_at]

  -- The account as of now. A window rolls over when its id moves forward; an earlier id counts as the stored one.
  local de, we, me, ye = 0, 0, 0, 0
  local da, dc, dr, wa, wc, wr, ma, mc, mr, ya, yc, yr = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
  local pending, paced_until, suspended_at, changes, marks, list = 0, 0, 0, 0, 0, 0
  local rolled, closed = false, ''
  local on_credit, cycle, exposure, unbilled = false, 0, 0, 0
  if account_value then
    local format, sd, sw, _, from
    format, sd, sw, de, we, me, ye, _, marks, list, da, dc, wa, wc, ma, mc, ya, yc, changes, from = decode(USAGE, account_value)
    if format >= CREDIT_FORMAT then
      on_credit = true
      cycle, exposure, unbilled, from = decode(CREDIT, account_value, from)
    end
    if format ~= ACCOUNT_FORMAT and format ~= CREDIT_FORMAT then
      dr, wr, mr, yr, pending, paced_until, suspended_at = decode(SELDOM, account_value, from)
    end
    local sm, sy = month_and_year(sd)
    rolled = day > sd or week > sw
    if rolled then
      closed = closed_window(DAY, day, sd, de, da, dc, dr) .. closed_window(WEEK, week, sw, we, wa, wc, wr)
        .. closed_window(MONTH, month, sm, me, ma, mc, mr) .. closed_window(YEAR, year, sy, ye, ya, yc, yr)
    end
    if day > sd then de, da, dc, dr = 0, 0, 0, 0 else day = sd end
    if week > sw then we, wa, wc, wr = 0, 0, 0, 0 else week = sw end
    if month > sm then me, ma, mc, mr = 0, 0, 0, 0 else month = sm end
    if year > sy then ye, ya, yc, yr = 0, 0, 0, 0 else year = sy end
    if rolled and marks > 0 then
      marks = open_levels(marks, day > sd, week > sw, month > sm, year > sy)
      if marks == 0 then list = 0 end
    end
  end
  -- With the first command that has a credit line the account begins to keep its exposure.
  if terms_cycle > 0 and (not on_credit or terms_cycle > cycle) then
    if cycle > 0 then closed = closed .. encode(CLOSED, BILLING_CYCLE, cycle, 0, unbilled, 0, 0) end
    rolled, on_credit, cycle, unbilled = true, true, terms_cycle, 0
  end
  -- While servers of the previous format are running, its accounts stay as they are, until they are on a credit line.
  local old = previous and not on_credit and (not account_value or byte(account_value) == PREVIOUS_FORMAT)
  local merchant_suspended = merchant_value and byte(merchant_value, MERCHANT_FLAGS_AT) == MERCHANT_SUSPENDED_FLAG
  local suspended = suspended_at > 0 or merchant_suspended
  local da0, dc0, dr0, wa0, wc0, wr0 = da, dc, dr, wa, wc, wr
  local ma0, mc0, mr0, ya0, yc0, yr0, pending0 = ma, mc, mr, ya, yc, yr, pending
  local exposure0, unbilled0 = exposure, unbilled

  -- The order, unless it is unknown or has expired.
  local known, state, pinned, given_back = false, OPEN, false, false
  local o_currency, o_day, o_week, o_month, o_year, o_de, o_we, o_me, o_ye = currency, 0, 0, 0, 0, 0, 0, 0, 0
  local o_amount, o_decision, until_at, settles, settled, refunded = 0, decision_id, 0, 0, 0, 0
  local live, voided, operations = '', '', ''
  -- The billing cycle that it is on the credit line with, 0 for none.
  local o_cycle = 0
  -- Its weight, nil where its amount counts as it is.
  local o_bp, o_units
  -- Whether the charge's outcome is unknown, whether the gateway is known to have it, whether an operation's was ever unknown.
  local unknown, made, doubted = false, false, false
  local any_time = false
  repeat
    if order_value then
      local _, d, w, e1, ew, e2, e3, s, f, c3, a, expires, id, live_n, voided_n, operations_n, from = decode(ORDER, order_value)
      if any_time or expires > now then
        known, state, pinned = true, s, f % (2 * ORDER_PINNED_FLAG) == ORDER_PINNED_FLAG
        given_back = f % (2 * ORDER_GIVEN_BACK_FLAG) >= ORDER_GIVEN_BACK_FLAG
        unknown, made = f % (2 * ORDER_UNKNOWN_FLAG) >= ORDER_UNKNOWN_FLAG, f % (2 * ORDER_MADE_FLAG) >= ORDER_MADE_FLAG
        doubted, o_cycle = f % (2 * ORDER_DOUBTED_FLAG) >= ORDER_DOUBTED_FLAG, 0
        o_currency, o_day, o_week, o_de, o_we, o_me, o_ye, o_amount, o_decision = c3, d, w, e1, ew, e2, e3, a, id
        o_month, o_year = month_and_year(d)
        live = sub(order_value, from, from + ID_LEN * live_n - 1)
        from = from + ID_LEN * live_n
        if not any_time or voided == '' then
          voided = sub(order_value, from, from + ID_LEN * voided_n - 1)
        end
        from = from + ID_LEN * voided_n
        if f % (2 * ORDER_ON_CREDIT_FLAG) >= ORDER_ON_CREDIT_FLAG then
          o_cycle, from = decode(ORDER_CYCLE, order_value, from)
        end
        if f >= ORDER_WEIGHED_FLAG then
          o_bp, o_units, from = decode(WEIGHT, order_value, from)
        end
        if f % (2 * ORDER_HAS_TAIL_FLAG) >= ORDER_HAS_TAIL_FLAG then
          until_at, settles, settled, refunded, from = decode(TAIL, order_value, from)
          operations = sub(order_value, from)
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

