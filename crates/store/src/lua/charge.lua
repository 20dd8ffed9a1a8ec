  -- The function `decide`, continued: charges, holds, and charges that a holder has admitted from a right.

  if op == CONSUME or op == HOLD or op == REPORT then
    local charged = state == CHARGED or state == HELD or state == SETTLED
    local same = charged and o_amount == amount and o_currency == currency and (state ~= CHARGED) == (op == HOLD)
    -- Why the order takes no attempt, whatever it requests: not even the repetition of an admitted one.
    local barred
    if voided ~= '' and position(voided, attempt) then
      barred = ATTEMPT_VOIDED
    elseif given_back or state == STATE_VOIDED then
      barred = ORDER_CLOSED
    elseif charged and suspended and op ~= REPORT then
      barred = SUSPENDED
    end
    local charges, hold_until, hold_settles = false, 0, 0
    if same and not barred and position(live, attempt) then
      -- The same attempt again: it gets the same answer, even when no more events are taken.
      code, replay, answer_id, journal = ADMITTED, true, o_decision, false
    elseif waiting[stream] >= backlog_max and op ~= REPORT then
      code, journal = BACKLOG_FULL, false
    elseif barred then
      code = barred
    elseif same and replays_max < ANY_REPLAYS and (pinned or max(#live / ID_LEN, 1) > replays_max) then
      code = REPLAY_REFUSED
    elseif same then
      code, replay, answer_id, order_changed = ADMITTED, true, o_decision, true
      if #live < ATTEMPTS_LEN_MAX then live = live .. attempt else pinned = true end
    elseif charged then
      code = IDEMPOTENCY_CONFLICT
    elseif op == REPORT then
      -- The payment went on. Its right pays for it, or it is counted now, whatever the limits are.
      local right, left, left_count, right_counts = values[right_at], 0, 0, nil
      code, charges = ADMITTED, true
      if right then
        o_day, o_week, o_de, o_we, o_me, o_ye, bp, units, left, left_count = decode(RIGHT_OF_REPORT, right)
        right_counts = counted(amount, bp, units)
      end
      if right and left >= right_counts and left_count > 0 then
        right = sub(right, 1, RIGHT_LEFT_AT - 1) .. encode('<dd', left - right_counts, left_count - 1) .. sub(right, RIGHT_UNTIL_AT)
        if not dry then values[right_at] = right end
        if o_day ~= day or o_week ~= week or o_de ~= de or o_we ~= we or o_me ~= me or o_ye ~= ye then
          counting[number] = sub(right, WINDOWS_AT, (WINDOWS_AT + COUNTED_LEN - 1))
        end
        counts, o_cycle = right_counts, 0
      else
        bp, units = decode(WEIGHT, packed, at)
        counts, account_changed = counted(amount, bp, units), true
        da, dc, wa, wc = min(da + counts, AMOUNT_MAX), min(dc + 1, AMOUNT_MAX), min(wa + counts, AMOUNT_MAX), min(wc + 1, AMOUNT_MAX)
        ma, mc, ya, yc = min(ma + counts, AMOUNT_MAX), min(mc + 1, AMOUNT_MAX), min(ya + counts, AMOUNT_MAX), min(yc + 1, AMOUNT_MAX)
        o_day, o_week, o_de, o_we, o_me, o_ye, o_cycle = day, week, de, we, me, ye, 0
        if on_credit then
          exposure, unbilled, o_cycle = min(exposure + amount, AMOUNT_MAX), min(unbilled + amount, AMOUNT_MAX), cycle
        end
      end
      if bp == WEIGHT_WHOLE_BP then bp, units, counts = nil, nil, nil end
    elseif refusal == POLICY_MISSING then
      code = refusal
    elseif suspended then
      code = SUSPENDED
    elseif refusal ~= 0 then
      code = refusal
    elseif on_credit and terms_cycle == 0
      and flags % (2 * COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG) >= COMMAND_REFUSE_UNKNOWN_CREDIT_FLAG then
      code = CREDIT_UNKNOWN
    else
      local pending_max, lifetime_secs, on_expiry
      if op == HOLD then
        pending_max, lifetime_secs, on_expiry, at = decode('<dI4B', packed, at)
      end
      local taken = counts or amount
      local broken = breaks(taken, dc, wc, mc, yc, da, wa, ma, ya, dc_max, wc_max, mc_max, yc_max, da_max, wa_max, ma_max,
        ya_max)
      local interval, tolerance, delay_max
      if broken and paced then
        interval, tolerance, delay_max, at = decode('<ddd', packed, at)
        code = breaks(taken, dc, wc, mc, yc, da, wa, ma, ya, decode(MAXIMA, packed, at))
      else
        code = broken
      end
      if not code and op == HOLD and pending > pending_max - taken then
        code = PENDING_AMOUNT
      end
      if not code and on_credit then
        code = exceeds(exposure, amount, credit_max, uncapped_max)
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
        code, account_changed, charges = ADMITTED, true, true
        da, dc, wa, wc = da + taken, dc + 1, wa + taken, wc + 1
        ma, mc, ya, yc = ma + taken, mc + 1, ya + taken, yc + 1
        if on_credit then exposure, o_cycle = exposure + amount, cycle else o_cycle = 0 end
        if on_credit and op == CONSUME then unbilled = min(unbilled + amount, AMOUNT_MAX) end
        o_day, o_week, o_month, o_year, o_de, o_we, o_me, o_ye = day, week, month, year, de, we, me, ye
        if op == HOLD then
          hold_until, hold_settles, pending = min(now + lifetime_secs, U32_MAX), on_expiry, pending + taken
        end
      end
    end
    if charges then
      order_changed, known, state, pinned, given_back, live, operations = true, true, CHARGED, false, false, attempt, ''
      unknown, made, doubted, o_bp, o_units = false, false, false, bp, units
      o_currency, o_amount, o_decision, until_at, settles, settled, refunded = currency, amount, decision_id, 0, 0, 0, 0
      if op == HOLD then state, until_at, settles = HELD, hold_until, hold_settles end
    end
    if replay then
      bp, units, counts = o_bp, o_units, o_bp and counted(o_amount, o_bp, o_units)
    end
