-- Note that a run found all objects of a batch missing: like note_missing.lua, by a range of positions.
--
-- KEYS: job, done, needed, copied
-- ARGV: name, number, seconds until the keys expire, when the job of the run was submitted, first position, number of
--       objects, bytes
-- Returns: 1, 0 if an earlier run noted some of the objects, so note_missing.lua must count them one by one
-- Atomic: bits and counts move together, and nothing moves once the batch is accounted for.
-- Uses: lib_final, lib_same_job

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or not same_job(KEYS[1], ARGV[4]) then return 1 end
if redis.call('GETBIT', KEYS[2], ARGV[2]) == 1 then return 1 end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
local first, last = tonumber(ARGV[5]), tonumber(ARGV[5]) + tonumber(ARGV[6])
-- Set single bits up to the first whole byte and after the last whole byte, and all bytes in between at once.
local whole = math.min(math.ceil(first / 8) * 8, last)
local rest = whole + math.floor((last - whole) / 8) * 8
for at = first, whole - 1 do redis.call('SETBIT', KEYS[4], at, 1) end
if rest > whole then redis.call('SETRANGE', KEYS[4], whole / 8, string.rep('\255', (rest - whole) / 8)) end
for at = rest, last - 1 do redis.call('SETBIT', KEYS[4], at, 1) end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[6] .. ' ' .. ARGV[7])
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return 1
