-- Removes consumers that are gone: idle for long and with nothing pending. One script, because a consumer that took an
-- entry between the look and the removal would lose it.
-- KEYS[1] the shard's stream
-- ARGV[1] the group, ARGV[2] least idle time in milliseconds
-- Reply: number of consumers removed
local removed = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
