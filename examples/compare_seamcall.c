/*
 * Compare a C implementation of SEAMCALL's checks with seamref, state by state.
 *
 *   python -m seamref seamcall-table --c --revision silicon > seamcall.h
 *   cc -o compare_seamcall compare_seamcall.c && ./compare_seamcall
 *
 * my_seamcall() stands for your emulator's or hypervisor's code; this one follows the order that was measured on
 * silicon.  Compiled with -DCPL_AFTER_EXIT it follows the pseudo-code of 343754-002 instead, and the program prints
 * the states in which that differs.
 */
#include <stdio.h>

#include "seamcall.h"

static enum seamcall_outcome my_seamcall(unsigned int in)
{
	if (!(in & SEAMCALL_IN_VMX) || (in & SEAMCALL_IN_SMM))
		return SEAMCALL_UD;
	if ((in & SEAMCALL_IN_INSEAM) && !(in & SEAMCALL_IN_NON_ROOT))
		return SEAMCALL_UD;
	if (!(in & SEAMCALL_IN_64BIT))
		return SEAMCALL_UD;
#ifndef CPL_AFTER_EXIT
	if (in & SEAMCALL_IN_USER)
		return SEAMCALL_GP_0;
#endif
	if (in & SEAMCALL_IN_NON_ROOT)
		return SEAMCALL_VM_EXIT_76;
	if ((in & SEAMCALL_IN_USER) || !(in & SEAMCALL_IN_SEAMRR) || (in & SEAMCALL_IN_MOV_SS))
		return SEAMCALL_GP_0;
	if (!(in & SEAMCALL_IN_RAX63))
		return (in & SEAMCALL_IN_SEAM_READY) ? SEAMCALL_ENTERED_TDX_MODULE : SEAMCALL_VMFAILINVALID;
	if ((in & SEAMCALL_IN_MUTEX) || !(in & SEAMCALL_IN_P_READY))
		return SEAMCALL_VMFAILINVALID;
	return SEAMCALL_ENTERED_P_SEAMLDR;
}

int main(void)
{
	unsigned int state, wrong = 0;

	for (state = 0; state < SEAMCALL_STATES; state++) {
		if (my_seamcall(state) == seamcall_table[state][0])
			continue;
		wrong++;
		printf("state 0x%03x: clause %s decides otherwise\n", state, seamcall_clauses[seamcall_table[state][1]]);
	}
	printf("%u of %u states differ\n", wrong, SEAMCALL_STATES);
	return wrong != 0;
}
