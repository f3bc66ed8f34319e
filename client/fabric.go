package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/gleaner-hpc/gleaner/api"
)

// FunctionError says what went wrong in the function, by name.
type FunctionError struct {
	Kind   string
	Signal int
	Detail string
}

func (e *FunctionError) Error() string {
	if e.Detail == "" {
		return e.Kind
	}
	return fmt.Sprintf("%s: %s", e.Kind, e.Detail)
}

// GoneError says that the executor is gone, and whether the function had begun.
type GoneError struct {
	Reason string
	Began  bool
}

func (e *GoneError) Error() string { return "executor gone: " + e.Reason }

// RefusedError says that the executor did not accept the connection.
type RefusedError struct{ Code, Text string }

func (e *RefusedError) Error() string { return "executor refused: " + e.Text }

func fabricConnector(carrier, provider string) Connector {
	return func(context.Context, *api.Executor, *Function, uint64) (Conn, error) {
		return nil, errors.New("package fabric is not wired")
	}
}
