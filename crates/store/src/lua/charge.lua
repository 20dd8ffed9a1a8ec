  -- The function `decide`, continued: charges and holds.

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
    elseif same and replays_max < ANY_REPLAYS and (pinned or max(#live / ID_LEN, 1) > replays_max) then
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
        code, account_changed, order_changed = ADMITTED, true, true
        da, dc, wa, wc = da + taken, dc + 1, wa + taken, wc + 1
        ma, mc, ya, yc = ma + taken, mc + 1, ya + taken, yc + 1
        if on_credit then exposure, o_cycle = exposure + amount, cycle else o_cycle = 0 end
        if on_credit and op == CONSUME then unbilled = min(unbilled + amount, AMOUNT_MAX) end
        known, state, pinned, given_back, live, operations = true, CHARGED, false, false, attempt, ''
        unknown, made, doubted, o_bp, o_units = false, false, false, bp, units
        o_currency, o_amount, o_decision, until_at, settles, settled, refunded = currency, amount, decision_id, 0, 0, 0, 0
        o_day, o_week, o_month, o_year, o_de, o_we, o_me, o_ye = day, week, month, year, de, we, me, ye
        if op == HOLD then
          state, until_at, settles, pending = HELD, min(now + lifetime_secs, U32_MAX), on_expiry, pending + taken
        end
      end
    end
    if replay then
      bp, units, counts = o_bp, o_units, o_bp and counted(o_amount, o_bp, o_units)
    end
