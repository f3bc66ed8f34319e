package identity

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// None believes whatever uid a caller says. It is for tests; As overrides the uid of the process. The gid is the same number.
type None struct {
	As *uint32
}

// Name is "none".
func (None) Name() string { return "none" }

// Encode returns the uid in decimal. There is nothing to carry a payload in.
func (n None) Encode(string) (string, error) {
	uid := uint64(os.Geteuid())
	if n.As != nil {
		uid = uint64(*n.As)
	}
	return strconv.FormatUint(uid, 10), nil
}

// Decode reads what Encode writes and returns no payload.
func (None) Decode(credential string) (Caller, string, error) {
	uid, err := strconv.ParseUint(strings.TrimSpace(credential), 10, 32)
	if err != nil {
		return Caller{}, "", fmt.Errorf("%w: method none wants a decimal uid, got %q", ErrCredential, credential)
	}
	return Caller{UID: uint32(uid), GID: uint32(uid)}, "", nil
}
