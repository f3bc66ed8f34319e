package slurmctld

import (
	"slices"
	"strings"
)

// Slurm names one state in several ways, by version and by tool; these are the names that a View uses.
var flagNames = map[string]string{
	"maintenance":  "maint",
	"reservation":  "reserved",
	"res":          "reserved",
	"no_respond":   "not_responding",
	"drained":      "drain",
	"draining":     "drain",
	"powered_off":  "powered_down",
	"powering_off": "powering_down",
	"invalid":      "invalid_reg",
}

var baseStates = []string{"idle", "mixed", "allocated", "down", "unknown", "error", "future"}

// Suffixes of a base state in scontrol's and sinfo's output.
var suffixFlags = map[byte]string{
	'*': "not_responding",
	'~': "powered_down",
	'#': "powering_up",
	'!': "power_down",
	'%': "powering_down",
	'$': "maint",
	'@': "reboot_requested",
	'^': "reboot_issued",
	'-': "planned",
}

// nodeState sorts the words of a node's state into base state and flags. Words come as "IDLE", "IDLE+DRAIN", "DOWN*" or as several
// items. A state without a base that we know is "unknown", on which nothing is harvested.
func nodeState(words []string) (state string, flags []string) {
	state = "unknown"
	for _, word := range words {
		for part := range strings.SplitSeq(strings.ToLower(word), "+") {
			for part != "" && suffixFlags[part[len(part)-1]] != "" {
				flags = append(flags, suffixFlags[part[len(part)-1]])
				part = part[:len(part)-1]
			}
			switch {
			case part == "":
			case slices.Contains(baseStates, part):
				state = part
			default:
				if name := flagNames[part]; name != "" {
					part = name
				}
				flags = append(flags, part)
			}
		}
	}
	slices.Sort(flags)
	return state, slices.Compact(flags)
}

// Jobs in these states are in a View; all others have ended.
var jobStates = []string{"completing", "configuring", "resizing", "signaling", "stage_out", "stopped", "suspended", "running", "pending"}

// jobState picks one name out of a job's state words: what says most about the resources it holds comes first in jobStates.
// "" means that the job has ended.
func jobState(words []string) string {
	for _, known := range jobStates {
		for _, word := range words {
			if strings.EqualFold(word, known) {
				return known
			}
		}
	}
	return ""
}
