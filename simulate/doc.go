// Package simulate answers what harvesting would give on a machine whose jobs are known: it replays a trace and lets the policies, the
// broker's placement, the agents' ledgers and their eviction plans decide, the same code that runs on a cluster. Only what acts is
// replaced: nodes, jobs and functions are figures here. It is pure and deterministic: the same Config and Schedule give the same Outcome.
//
//	Trace ── Allocate ──▶ Schedule ── Run, once for each policy ──▶ Outcome ──▶ Report
//
// Slurm does not know of Gleaner, so who gets which node when is settled once for all policies. Time then goes from event to event:
//
//	job starts   the ledger names who overlaps, the plan evicts them; what they were computing is lost
//	job ends     its cores are free
//	round        at most once in Config.Round: placement.Decide fills nodes that changed since the last one
//
// Functions run back to back on an executor from its start to its end. Those of long-lived executors are not drawn one by one: the
// length of many is drawn as one sum (central limit theorem), the last ones singly, so that what an eviction loses is exact.
//
// It refuses nothing and knows no files; 'gleaner simulate' and 'gleaner estimate' are its callers.
package simulate
