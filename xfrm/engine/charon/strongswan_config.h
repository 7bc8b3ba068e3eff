/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instead of the config.h of strongSwan's ./configure: those of its results its headers look at (library.h includes
 * no other), as they are for the libraries in Debian 12. None of them changes the layout of what writer.c touches;
 * scripts/strongswan-headers says what to look at when the version changes. */
#ifndef GMGATE_STRONGSWAN_CONFIG_H
#define GMGATE_STRONGSWAN_CONFIG_H

#define CONFIG_H_INCLUDED
#define HAVE_STDBOOL_H 1
#define HAVE__BOOL 1
#define HAVE_EXPLICIT_BZERO 1
#define HAVE_MEMRCHR 1
#define HAVE_FMEMOPEN 1
#define HAVE_CLOSEFROM 1
#define HAVE_SIGWAITINFO 1
#define HAVE_CLOCK_GETTIME 1
#define HAVE_CONDATTR_CLOCK_MONOTONIC 1
#define HAVE_GCC_ATOMIC_OPERATIONS 1
#define HAVE_INT128 1
#define ME 1 /* --enable-mediation: two members of daemon_t, behind the one that is used */
#define CAPABILITIES_LIBCAP 1

#endif
