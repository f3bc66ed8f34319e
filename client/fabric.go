package client

import (
	"context"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// The data path's errors, as package fabric defines them.
type (
	// FunctionError is the function's own failure, by name: the final error of its task.
	FunctionError = fabric.FunctionError
	// GoneError says that an executor is no longer there.
	GoneError = fabric.GoneError
	// RefusedError is an executor's refusal of a connection.
	RefusedError = fabric.RefusedError
)

// connectTimeout bounds one attempt to connect to an executor and carry the code there.
const connectTimeout = 30 * time.Second

// fabricConnector connects by package fabric.
func fabricConnector(carrier, provider string) Connector {
	return func(ctx context.Context, e *api.Executor, f *Function, p Path) (Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		conn, err := fabric.Dial(ctx,
			fabric.Endpoint{Address: e.GetAddress(), Local: e.GetLocal(), Token: e.GetToken()},
			fabric.Code{Symbol: f.Symbol, Library: f.Library, Digest: f.Digest},
			fabric.Options{Carrier: carrier, Provider: provider, BufferBytes: p.Buffer, Spin: p.Spin})
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}
