/*
 * A small strict JSON reader for consumers: one line in, no allocation, no dependency.
 *
 * A value is the text between two pointers.  json_field() finds a field of an object; json_end() is the end of the
 * value that begins at a place, or NULL where none does.  Strings are compared as they are written: names and ids of
 * the kit hold no escapes.
 */
#ifndef SEAMREF_JSON_H
#define SEAMREF_JSON_H

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define JSON_DEPTH 32

static const char *json_space(const char *at)
{
	while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n')
		at++;
	return at;
}

static const char *json_string_end(const char *at)
{
	for (at++; *at && *at != '"'; at++)
		if (*at == '\\' && !*++at)
			return NULL;
	return *at ? at + 1 : NULL;
}

static const char *json_end_at(const char *at, int depth)
{
	char close;

	at = json_space(at);
	if (*at == '"')
		return json_string_end(at);
	if (*at != '{' && *at != '[') {
		const char *from = at;

		while (isalnum((unsigned char)*at) || *at == '-' || *at == '+' || *at == '.')
			at++;
		return at == from ? NULL : at;
	}
	if (depth == 0)
		return NULL;
	close = *at == '{' ? '}' : ']';
	at = json_space(at + 1);
	if (*at == close)
		return at + 1;
	for (;;) {
		if (close == '}') {
			if (*at != '"' || !(at = json_string_end(at)) || *(at = json_space(at)) != ':')
				return NULL;
			at++;
		}
		if (!(at = json_end_at(at, depth - 1)))
			return NULL;
		at = json_space(at);
		if (*at == close)
			return at + 1;
		if (*at != ',')
			return NULL;
		at = json_space(at + 1);
	}
}

/* The end of the value that begins here; NULL where the text is no value. */
static const char *json_end(const char *at)
{
	return json_end_at(at, JSON_DEPTH);
}

/* The value of a field of the object that begins here; NULL where it has no such field. */
static const char *json_field(const char *at, const char *name)
{
	size_t length = strlen(name);

	at = json_space(at);
	if (*at != '{')
		return NULL;
	for (at = json_space(at + 1); *at == '"'; at = json_space(at + 1)) {
		const char *key = at + 1, *end = json_string_end(at), *value;

		if (!end || *(value = json_space(end)) != ':')
			return NULL;
		value = json_space(value + 1);
		if ((size_t)(end - 1 - key) == length && !memcmp(key, name, length))
			return value;
		if (!(at = json_end(value)) || *(at = json_space(at)) != ',')
			return NULL;
	}
	return NULL;
}

/* Whether a value is this literal: true, false, null, a number, or a string with its quotes. */
static bool json_is(const char *at, const char *literal)
{
	const char *end = at ? json_end(at) : NULL;

	return end && (size_t)(end - at) == strlen(literal) && !memcmp(at, literal, strlen(literal));
}

#endif
