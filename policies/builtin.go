package policies

// Names are those of the built-in policies, the most careful with jobs' allocations first.
func Names() []string { return []string{"idle", "slack", "careful", "pressure"} }

// Builtin returns a built-in policy by name; nil when there is none of that name.
func Builtin(name string) Policy {
	switch name {
	case "idle":
		return Idle{}
	case "slack":
		return Slack{}
	case "careful":
		return Careful{}
	case "pressure":
		return Pressure{}
	}
	return nil
}
