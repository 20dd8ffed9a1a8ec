  -- The function `decide`, continued: voids, captures, refunds, outcomes, and operators' commands.

  else
    local charged = state == CHARGED or state == HELD or state == SETTLED
    local held = state == HELD and max(o_amount - settled, 0) or 0
    -- Of an order with a weight: the net amount, which still counts.
    local net = o_bp and charged and (state == CHARGED and o_amount or settled + held) or 0
    for place = 1, net > 0 and #operations or 0, OPERATION_LEN do
      if byte(operations, place) == REFUNDED then net = max(net - decode('<d', operations, place + (OPERATION_AMOUNT_AT - 1)), 0) end
    end

    -- What a part of the hold counts.
    local function counts_of_held(less)
      return o_bp and counted(held, o_bp, o_units) - counted(held - less, o_bp, o_units) or less
    end

    -- Returns what an amount counts to the windows that it was counted in, as far as they are still open.
    local function give_back(less, charge)
      if o_bp then
        less = counted(net, o_bp, o_units) - counted(net - less, o_bp, o_units)
        bp, units, counts = o_bp, o_units, less
      end
      if o_day == day and o_de == de then da, dc = max(da - less, 0), max(dc - charge, 0) end
      if o_week == week and o_we == we then wa, wc = max(wa - less, 0), max(wc - charge, 0) end
      if o_month == month and o_me == me then ma, mc = max(ma - less, 0), max(mc - charge, 0) end
      if o_year == year and o_ye == ye then ya, yc = max(ya - less, 0), max(yc - charge, 0) end
    end

    -- Takes an amount out of the exposure that an order has raised, and what is billed of it out of its cycle, if it is open.
    local function release_credit(less, billed)
      if on_credit and o_cycle > 0 then
        exposure = max(exposure - less, -AMOUNT_MAX)
        if o_cycle == cycle then unbilled = max(unbilled - billed, 0) end
      end
    end

    -- Bills a capture in the present cycle.
    local function bill(captured)
      if on_credit and o_cycle > 0 then
        unbilled, o_cycle = min(unbilled + captured, AMOUNT_MAX), cycle
      end
    end

    -- The last attempt is gone: the order is open again, and its charge comes back.
    local function open_again()
      code, account_changed, order_changed, amount = VOIDED, true, true, o_amount
      give_back(o_amount, 1)
      release_credit(o_amount, state == CHARGED and o_amount or settled)
      pending = max(pending - counts_of_held(held), 0)
      state, unknown = OPEN, false
    end

    local function add_operation(kind, id)
      operations = operations .. encode(OPERATION, kind, id, attempt, amount, day, week, de, we, me, ye, decision_id)
    end

    -- A capture or refund that was taken before: the same amount gets the first answer.
    local function repeated(place)
      local _, _, _, taken, _, _, _, _, _, _, first = decode(OPERATION, operations, place)
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
      release_credit(held, 0)
      pending = max(pending - counts_of_held(held), 0)
      state = settled == 0 and STATE_VOIDED or SETTLED
      live, given_back = '', true
    end

    -- What ended the hold gets its answer again; a release does not also refund what was captured.
    local function released_before(place)
      local _, _, _, taken, _, _, _, _, _, _, first = decode(OPERATION, operations, place)
      code, replay, answer_id, journal, amount = VOIDED, true, first, false, taken
    end

    local end_id = attempt
    if op == RELEASE then
      end_id = sub(packed, at, at + (ID_LEN - 1))
      local place = operation(operations, { [RELEASED] = true }, OPERATION_ID_AT, end_id)
      if place and o_currency == currency then
        released_before(place)
      end
      local holds = state == HELD or state == STATE_VOIDED
      op = holds and o_currency == currency and VOID or REFUND
    end

    if code then
      -- Answered already.
    elseif op == POST then
      local kind = byte(packed, at)
      local raises = kind == REVERSAL or kind == TRANSFER_OUT or kind == OPENING
      -- A recovery is for what a write-off has taken out of the exposure.
      local change = raises and amount or kind ~= RECOVERY and -amount or 0
      if known and o_amount == amount and o_currency == currency then
        code, replay, answer_id, journal = APPLIED, true, o_decision, false
      elseif known then
        code = IDEMPOTENCY_CONFLICT
      elseif not on_credit then
        code = CREDIT_UNKNOWN
      elseif amount == 0 or exposure > AMOUNT_MAX - change or exposure < -AMOUNT_MAX - change then
        code = BAD_AMOUNT
      elseif kind == TRANSFER_OUT and suspended then
        code = SUSPENDED
      else
        code = kind == TRANSFER_OUT and exceeds(exposure, amount, credit_max, uncapped_max) or APPLIED
        if code == APPLIED then
          account_changed, order_changed, exposure = true, true, exposure + change
          if kind == TRANSFER_OUT then unbilled = min(unbilled + amount, AMOUNT_MAX) end
          known, state, o_amount = true, CHARGED, amount
        end
      end
    elseif op == VOID_ATTEMPT then
      local reservation = operation(operations, { [RESERVATION] = true }, OPERATION_ATTEMPT_AT, attempt)
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
          live = sub(live, 1, live_at - 1) .. sub(live, live_at + ID_LEN)
        end
        voided = voided .. attempt
        if #voided > ATTEMPTS_LEN_MAX then
          voided = sub(voided, (ID_LEN + 1))
        end
        if reservation then
          -- The gateway did not refund: removed from the counters that it was counted in, as far as their windows are still open.
          local _, _, _, taken, d, w, e1, ew, e2, e3 = decode(OPERATION, operations, reservation)
          local m, y = month_and_year(d)
          operations = sub(operations, 1, reservation - 1) .. sub(operations, reservation + OPERATION_LEN)
          code, account_changed, amount, refunded = APPLIED, true, taken, max(refunded - taken, 0)
          if d == day and e1 == de then dr = max(dr - taken, 0) end
          if w == week and ew == we then wr = max(wr - taken, 0) end
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
    elseif (op <= EXPIRE or op == EXTEND_HOLD) and state == OPEN then
      code, journal = ORDER_UNKNOWN, op ~= EXPIRE
    elseif (op <= EXPIRE or op == EXTEND_HOLD) and o_currency ~= currency then
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
        local less = counts_of_held(held)
        if o_bp then bp, units, counts = o_bp, o_units, less end
        pending = max(pending - less, 0)
        bill(held)
        settled, state = o_amount, SETTLED
      end
    elseif op == EXTEND_HOLD then
      local extended = decode('<I4', packed, at)
      if state ~= HELD then
        code = ORDER_CLOSED
      elseif extended <= until_at then
        code, replay, journal, amount = APPLIED, true, false, held
      else
        code, order_changed, amount, until_at = APPLIED, true, held, extended
      end
    elseif op == SETTLE then
      local id, percent = decode('<c16B', packed, at)
      local place = operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id)
      if place then
        repeated(place)
      elseif state ~= HELD and (percent < REPORTED or asked < 0 or state == CHARGED) then
        code = ORDER_CLOSED
      else
        if asked < 0 then amount = held end
        local more = max(amount - held, 0)
        local more_counts = o_bp and counted(net + more, o_bp, o_units) - counted(net, o_bp, o_units) or more
        -- In two parts, each of them exact.
        local rest = o_amount % 100
        local allowed = (o_amount - rest) / 100 * percent + (rest * percent - rest * percent % 100) / 100
        if amount == 0 then
          code = BAD_AMOUNT
        elseif #operations >= (percent < REPORTED and OPERATIONS_LEN_MAX or REPORTED_LEN_MAX)
          and not (marked and state == HELD) then
          code = ORDER_FULL
        elseif (more > allowed and percent < REPORTED) or da > AMOUNT_MAX - more_counts or wa > AMOUNT_MAX - more_counts
          or ma > AMOUNT_MAX - more_counts or ya > AMOUNT_MAX - more_counts or settled > AMOUNT_MAX - amount then
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
          local freed = counts_of_held(min(held, amount) + returned)
          pending = max(pending - freed, 0)
          give_back(returned, 0)
          -- Of what is no longer held, that which was not returned: give_back has set what was.
          if o_bp then counts = freed - counts + more_counts end
          -- Money that was captured beyond the hold is consumed now, whatever the limits are.
          da, wa, ma, ya = da + more_counts, wa + more_counts, ma + more_counts, ya + more_counts
          bill(amount)
          release_credit(returned, 0)
          if on_credit and o_cycle > 0 then exposure = min(exposure + more, AMOUNT_MAX) end
        end
      end
    elseif op == REFUND then
      local id, daily_max, monthly_max = decode('<c16dd', packed, at)
      local place = operation(operations, { [RESERVATION] = true, [REFUNDED] = true }, OPERATION_ID_AT, id)
      if state == STATE_VOIDED then
        code = ORDER_CLOSED
      elseif place then
        local kind, _, owner, taken, d, w, e1, ew, e2, e3, first = decode(OPERATION, operations, place)
        if kind == REFUNDED or (asked >= 0 and asked ~= taken) or (marked and owner == attempt) then
          repeated(place)
        else
          -- The latest attempt is the one whose failure cancels the refund: an earlier one's would end this one's too.
          local next_kind = marked and RESERVATION or REFUNDED
          operations = sub(operations, 1, place - 1)
            .. encode(OPERATION, next_kind, id, attempt, taken, d, w, e1, ew, e2, e3, first)
            .. sub(operations, place + OPERATION_LEN)
          code, order_changed, amount = APPLIED, true, taken
          if marked then
            replay, answer_id = true, first
          else
            account_changed, given_back, unknown, made = true, true, false, true
            give_back(taken, 0)
            release_credit(taken, taken)
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
        elseif mr > monthly_max - amount or wr > AMOUNT_MAX - amount or yr > AMOUNT_MAX - amount then
          code = REFUND_MONTHLY
        else
          code, account_changed, order_changed = APPLIED, true, true
          refunded = refunded + amount
          add_operation(marked and RESERVATION or REFUNDED, id)
          dr, wr, mr, yr = dr + amount, wr + amount, mr + amount, yr + amount
          if not marked then
            given_back = true
            give_back(amount, 0)
            release_credit(amount, amount)
            unknown, made = false, true
          end
        end
      end
    elseif op == UNKNOWN or op == RESOLVE then
      local what, id = decode('<Bc16', packed, at)
      local of_charge = op == UNKNOWN and what == OF_CHARGE
      if op == RESOLVE and what == NOT_MADE and known and state == OPEN then
        code, replay, journal = VOIDED, true, false
      elseif state == OPEN then
        code, journal = ORDER_UNKNOWN, op == RESOLVE and what == NOT_MADE
      elseif o_currency ~= currency then
        code, journal = IDEMPOTENCY_CONFLICT, op == RESOLVE and what == NOT_MADE
      elseif op == RESOLVE and what == MADE then
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
          or (what == CAPTURE and operation(operations, { [CAPTURE] = true }, OPERATION_ID_AT, id))
          or (what == REFUNDED and operation(operations, { [REFUNDED] = true }, OPERATION_ID_AT, id))
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
      local used = {
        [DAILY_USED_COUNTER] = da, [WEEKLY_USED_COUNTER] = wa, [MONTHLY_USED_COUNTER] = ma, [YEARLY_USED_COUNTER] = ya,
        [TRANSACTIONS_TODAY_COUNTER] = dc, [TRANSACTIONS_WEEK_COUNTER] = wc, [TRANSACTIONS_MONTH_COUNTER] = mc,
        [TRANSACTIONS_YEAR_COUNTER] = yc, [REFUNDED_TODAY_COUNTER] = dr, [REFUNDED_WEEK_COUNTER] = wr,
        [REFUNDED_MONTH_COUNTER] = mr, [REFUNDED_YEAR_COUNTER] = yr, [PENDING_AMOUNT_COUNTER] = pending,
      }
      local value = change == ADD and used[counter] + amount or change == SUBTRACT and used[counter] - amount or amount
      if expected >= 0 and expected ~= changes then
        code = VERSION_CONFLICT
      elseif value < 0 or value > AMOUNT_MAX then
        code = BAD_AMOUNT
      else
        code, account_changed, used[counter] = APPLIED, true, value
        da, wa, ma, ya = used[DAILY_USED_COUNTER], used[WEEKLY_USED_COUNTER], used[MONTHLY_USED_COUNTER], used[YEARLY_USED_COUNTER]
        dc, wc = used[TRANSACTIONS_TODAY_COUNTER], used[TRANSACTIONS_WEEK_COUNTER]
        mc, yc = used[TRANSACTIONS_MONTH_COUNTER], used[TRANSACTIONS_YEAR_COUNTER]
        dr, wr = used[REFUNDED_TODAY_COUNTER], used[REFUNDED_WEEK_COUNTER]
        mr, yr = used[REFUNDED_MONTH_COUNTER], used[REFUNDED_YEAR_COUNTER]
        pending = used[PENDING_AMOUNT_COUNTER]
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
          local epoch = BROUGHT_BACK_EPOCH + changes % BROUGHT_BACK_EPOCHS
          day, de = own_day, epoch
          if week > own_week then week, we = own_week, epoch end
          if month > own_month then month, me = own_month, epoch end
          if year > own_year then year, ye = own_year, epoch end
          paced_until = min(paced_until, now_ms * 1000)
        end
        if windows % (2 * RESET_DAY) == RESET_DAY then de, da, dc, dr = (de + 1) % EPOCHS, 0, 0, 0 end
        if windows % (2 * RESET_MONTH) >= RESET_MONTH then me, ma, mc, mr = (me + 1) % EPOCHS, 0, 0, 0 end
        if windows % (2 * RESET_YEAR) >= RESET_YEAR then ye, ya, yc, yr = (ye + 1) % EPOCHS, 0, 0, 0 end
        if windows >= RESET_WEEK then we, wa, wc, wr = (we + 1) % EPOCHS, 0, 0, 0 end
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
      if watch then marked, of_list = marked_by(watch, USED_BY_PLACE) end
      local changed = account_value and (rolled or marked ~= marks or of_list ~= list) or false
      code, account_changed, replay, journal = APPLIED, changed, not changed, changed
    end
  end

