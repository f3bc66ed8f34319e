// Package executor is the supervisor in a sandbox: it takes a lease from the node's agent, lets clients in by their tokens,
// receives the function's library, and runs a worker process that serves the function. It refuses what the token does not
// cover, decides how a request ended when the worker cannot say (crash, deadline, exit), and starts the worker again. Limits
// of memory and cores are imposed from outside. Command executor runs it as the first process of a sandbox.
//
//	client ──control──▶ supervisor ──socketpair, state page──▶ worker ◀──carrier── client
//	                        ▲
//	                      agent (Assign, Revoke)
//
// One goroutine (supervisor.run) owns all state; readers and writers of sockets talk to it by events.
//
//	worker:  none ──code there──▶ loading ──LOADED──▶ serving ──exit──▶ loading (clients attach again)
//	                                 └──fails, hangs, dies──▶ none (FAILED to every client; the next attachment tries again)
package executor
