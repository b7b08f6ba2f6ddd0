#!/bin/sh
# Makes .peers/chromium: a Chromium without a window, for the tests of the page, from Debian's packages.
# It needs no root and installs nothing: apt keeps its state in that folder, and the packages are only unpacked.
# Prints the path of the program. Remake it: rm -r .peers/chromium first.
# Needs Debian or what is made of it, on x86-64 or arm64.
set -eu
cd "$(dirname "$0")/.."

folder=$PWD/.peers/chromium
if "$folder/chromium" --version >/dev/null 2>&1; then echo "$folder/chromium"; exit 0; fi

part=$folder.part
rm -rf "$part" "$folder"
mkdir -p "$part/apt/lists/partial" "$part/apt/archives/partial" "$part/root/usr/lib/chromium"

# The machine's own status: what it has already isn't fetched again.
apt() {
  apt-get -q=2 -o Dir::State="$part/apt" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$part/apt" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@" >&2
}
apt update
apt --download-only --no-install-recommends -y install chromium-headless-shell fonts-inter fonts-dejavu-core fontconfig-config
for package in "$part"/apt/archives/*.deb; do
  if [ -e "$package" ]; then dpkg-deb -x "$package" "$part/root"; fi
done
rm -r "$part/apt"
mv "$part" "$folder"

cat >"$folder/fonts.conf" <<CONF
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$folder/root/usr/share/fonts</dir><dir>/usr/share/fonts</dir>
<cachedir>$folder/fonts-cache</cachedir>
<alias binding="same"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias binding="same"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias binding="same"><family>ui-monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
CONF
program=$(find "$folder/root/usr/lib/chromium" /usr/lib/chromium -name 'chromium-headless-shell' -type f 2>/dev/null | head -n 1)
libraries=$(find "$folder/root/usr/lib" -name '*.so*' -exec dirname {} + | sort -u | paste -s -d : -)
cat >"$folder/chromium" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH="$libraries" FONTCONFIG_FILE="$folder/fonts.conf"
exec "$program" "\$@"
RUN
chmod +x "$folder/chromium"
"$folder/chromium" --version >&2
echo "$folder/chromium"
