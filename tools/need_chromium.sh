#!/bin/sh
# The browser tests drive the system's Chromium or Chrome: install Debian's where there is none, and root and apt are.
for name in "$CHROME" chromium chromium-browser google-chrome google-chrome-stable chrome; do
  if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium >/dev/null && exit 0
fi
echo "tests/browser needs Chromium or Chrome: install one (Debian: apt-get install chromium), or let CHROME name it" >&2
