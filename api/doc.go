// Package api holds the contracts between Gleaner's processes: the protobuf messages in this folder (make generate), and in the
// folders below it the smaller ones that a process too lean for gRPC speaks. Roles meet here and never import each other.
//
//	client ⇄ broker     leases.proto     gRPC
//	agent ⇄ broker      agents.proto     gRPC, the agent dials
//	gate, hook ⇄ agent  gate             fixed binary frames, also written in C
//	agent ⇄ launcher    launcher         JSON frames on a Unix socket
//	executor ⇄ agent    executor         JSON frames on a Unix socket, the executor dials
//	client ⇄ executor   token            what a client shows; the frames belong to package fabric
package api
