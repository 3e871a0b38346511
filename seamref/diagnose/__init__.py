"""What people bring: log lines, numbers, register dumps, identities, and what each of them says."""
