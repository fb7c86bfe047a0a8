-- Defines: the constants of the limits, in seconds.
--
-- QUANTUM: all grants that are out together are worth so much time.
-- BURST: capacity that was unused for longer is lost.
-- HORIZON: the longest wait for a grant. NAP: the longest wait before the next request, where nothing is granted.
-- SEEN: a process that has not asked for so long has no share any more.
-- LAG and DEBT: how far a job can fall behind its share of a store's limit and still catch up, and how far it can get
-- ahead of its share while others leave capacity unused. AHEAD: how far it can get ahead in any case.
-- KEPT: the keys expire after so long.

local QUANTUM, BURST, HORIZON, NAP, SEEN = 0.1, 0.1, 0.5, 0.25, 2
local LAG, DEBT, AHEAD = 0.5, 0.2, 0.05
local KEPT = 60
