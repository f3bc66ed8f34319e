// Package plugin lets a site's policy be a process of its own, in any language: Serve is what such a process calls, Plugin is what the
// broker dials it with. The wire is hashicorp/go-plugin's gRPC with the service of api/policies.proto.
//
// A plugin in another language needs no library of Gleaner. It is started with GLEANER_POLICY_PLUGIN set to MagicCookie, listens on a
// Unix socket in $PLUGIN_UNIX_SOCKET_DIR (or on 127.0.0.1), serves gleaner.policy.v1.Policy there, and writes one line to its standard
// output: 1|VERSION|unix|SOCKET|grpc, where VERSION is policies.Version. What it writes to its standard error is logged by the broker.
// It is killed with SIGKILL when the broker ends.
package plugin

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
)

// MagicCookie is the value of GLEANER_POLICY_PLUGIN by which a program knows that it was started as a policy and not by hand.
const MagicCookie = "harvest-place-evict"

const serviceName = "policy"

func handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{ProtocolVersion: policies.Version, MagicCookieKey: "GLEANER_POLICY_PLUGIN", MagicCookieValue: MagicCookie}
}

// Serve answers for the policy until the broker ends the process. It is the last thing that a plugin's main calls.
func Serve(policy policies.Policy) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake(), Plugins: plugin.PluginSet{serviceName: &service{policy: policy}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(messageBytes), grpc.MaxSendMsgSize(messageBytes))...)
		},
	})
}

// messageBytes bounds a question: a view of some ten thousand nodes with their jobs and executors.
const messageBytes = 64 << 20

// service joins go-plugin and the policy's gRPC service.
type service struct {
	plugin.NetRPCUnsupportedPlugin
	policy policies.Policy
}

func (s *service) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	api.RegisterPolicyServer(server, &answering{policy: s.policy})
	return nil
}

func (s *service) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return api.NewPolicyClient(conn), nil
}

// answering serves a policy.
type answering struct {
	api.UnimplementedPolicyServer
	policy policies.Policy
}

func (a *answering) Harvest(_ context.Context, q *api.HarvestRequest) (*api.HarvestResponse, error) {
	return &api.HarvestResponse{Offers: each(a.policy.Harvest(viewOf(q)), wireOffer)}, nil
}

func (a *answering) Place(_ context.Context, q *api.PlaceRequest) (*api.PlaceResponse, error) {
	return &api.PlaceResponse{Nodes: a.policy.Place(requestOf(q), each(q.GetOffers(), offerOf))}, nil
}

func (a *answering) Evict(_ context.Context, q *api.EvictRequest) (*api.EvictResponse, error) {
	overlap := policies.Overlap{Node: q.GetNode(), Needed: amountOf(q.GetNeeded())}
	return &api.EvictResponse{Ids: a.policy.Evict(overlap, each(q.GetExecutors(), executorOf))}, nil
}
