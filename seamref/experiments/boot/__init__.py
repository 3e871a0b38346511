"""Experiments with the boot chain: what each break stops, what attackers gain, P_SEAMLDR_RANGE as it fills."""
