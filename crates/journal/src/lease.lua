-- Takes or keeps the lease of the one reader of the event streams, or releases it.
-- KEYS[1] the lease
-- ARGV[1] the reader's name, ARGV[2] milliseconds until the lease expires, 0 to release it
-- Reply: 0 the caller does not have it, 1 it still has it, 2 it has acquired it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return holder and 1 or 2
