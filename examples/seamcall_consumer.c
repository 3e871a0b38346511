/*
 * SEAMCALL's checks in C, as a program under test:
 *
 *   cc -O2 -o seamcall_consumer seamcall_consumer.c
 *   python -m seamref consume --set seamcall -- ./seamcall_consumer
 *   python -m seamref consume --set seamcall -- ./seamcall_consumer 343754-002
 *
 * decide() stands for your emulator's or hypervisor's code.  Without an argument it asks in the order that was
 * measured on silicon, and agrees everywhere; with 343754-002 it asks in the printed order, and is told the states in
 * which that differs.  Requests of another set are skipped with a reason.
 */
#include <stdio.h>
#include <stdlib.h>

#include "json.h"

struct facts {
	bool vmx, smm, inSEAM, non_root, b64, user, seamrr, mov_ss, rax63, seam_ready, p_ready, mutex;
};

enum outcome { UD, GP, EXIT, VMFAIL, TO_MODULE, TO_P_SEAMLDR };

static const char *const outcome_text[] = {
	[UD] = "{\"kind\":\"fault\",\"vector\":6,\"mnemonic\":\"#UD\",\"error_code\":null}",
	[GP] = "{\"kind\":\"fault\",\"vector\":13,\"mnemonic\":\"#GP\",\"error_code\":0}",
	[EXIT] = "{\"kind\":\"vm_exit\",\"reason\":76,\"exit_reason\":\"0x4C\",\"qualification\":\"0x0\"}",
	[VMFAIL] = "{\"kind\":\"vmfail_invalid\"}",
	[TO_MODULE] = "{\"kind\":\"entered\",\"target\":\"TDX module\"}",
	[TO_P_SEAMLDR] = "{\"kind\":\"entered\",\"target\":\"P-SEAMLDR\"}",
};

static enum outcome decide(const struct facts *f, bool as_printed)
{
	if (!f->vmx || f->smm)
		return UD;
	if (f->inSEAM && (as_printed || !f->non_root))
		return UD;
	if (!f->b64)
		return UD;
	if (!as_printed && f->user)
		return GP;
	if (f->non_root)
		return EXIT;
	if (f->user || !f->seamrr || f->mov_ss)
		return GP;
	if (!f->rax63)
		return f->seam_ready ? TO_MODULE : VMFAIL;
	return f->mutex || !f->p_ready ? VMFAIL : TO_P_SEAMLDR;
}

/* A fact of the input; a request without it is not one that this program understands. */
static bool fact(const char *input, const char *name)
{
	const char *value = json_field(input, name);

	if (!json_is(value, "true") && !json_is(value, "false")) {
		fprintf(stderr, "the input has no fact %s\n", name);
		exit(2);
	}
	return json_is(value, "true");
}

static void answer(const char *input, bool as_printed)
{
	const struct facts f = {
		.vmx = fact(input, "vmx"), .smm = fact(input, "smm"), .inSEAM = fact(input, "inSEAM"),
		.non_root = fact(input, "non_root"), .b64 = fact(input, "64bit"), .user = fact(input, "user"),
		.seamrr = fact(input, "seamrr"), .mov_ss = fact(input, "mov_ss"), .rax63 = fact(input, "rax63"),
		.seam_ready = fact(input, "seam_ready"), .p_ready = fact(input, "p_ready"), .mutex = fact(input, "mutex"),
	};
	enum outcome got = decide(&f, as_printed);

	printf("\"output\":{\"outcome\":%s,\"mutex\":\"%s\"}}\n", outcome_text[got],
	       got == TO_P_SEAMLDR ? "this processor" : f.mutex ? "another processor" : "free");
}

int main(int argc, char **argv)
{
	static char line[1 << 20];
	bool as_printed = argc > 1 && !strcmp(argv[1], "343754-002");

	while (fgets(line, sizeof(line), stdin)) {
		const char *id = json_field(line, "id"), *input = json_field(line, "input");

		if (!json_end(line) || !id || *id != '"' || !input) {
			fprintf(stderr, "not a request: %.60s\n", line);
			return 2;
		}
		printf("{\"id\":%.*s,", (int)(json_end(id) - id), id);
		if (json_is(json_field(line, "set"), "\"seamcall\""))
			answer(input, as_printed);
		else
			printf("\"skip\":\"only SEAMCALL is implemented\"}\n");
		fflush(stdout);
	}
	return 0;
}
