//go:build !race

package broker

// raced says that the race detector, which makes everything about ten times slower, is on.
const raced = false
