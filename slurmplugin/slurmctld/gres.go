package slurmctld

import (
	"strconv"
	"strings"
)

// gpus counts the GPUs of a GRES text: "gpu:2", "gpu:a100:4(S:0-1),nic:1", "gpu:a100:2(IDX:0-1)", "gres:gpu:1".
func gpus(text string) int {
	sum := 0
	for _, item := range splitGRES(text) {
		item, _, _ = strings.Cut(item, "(")
		fields := strings.Split(strings.TrimPrefix(item, "gres:"), ":")
		if fields[0] != "gpu" || len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[len(fields)-1], 10, 16); err == nil {
			sum += int(n)
		}
	}
	return sum
}

// splitGRES splits at commas outside parentheses: an IDX list holds commas of its own.
func splitGRES(text string) []string {
	depth, from := 0, 0
	var out []string
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, text[from:i])
				from = i + 1
			}
		}
	}
	return append(out, text[from:])
}
