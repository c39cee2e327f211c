/* SPDX-License-Identifier: MIT */
/* Words of others, before they come to a log or a terminal. */
#ifndef XENOLITH_BASE_TEXT_H
#define XENOLITH_BASE_TEXT_H

/* What a terminal would obey, and what is not UTF-8, becomes '?', byte by byte. */
void text_make_harmless(char *text);

#endif
