# Says what a machine has, one "name value" a line. It changes nothing.
LC_ALL=C
export LC_ALL
echo "rbee-discover 1"
echo "os $(uname -s) $(uname -r) $(uname -m)"
if [ -r /proc/cpuinfo ]; then
	echo "cpus $(grep -c '^processor' /proc/cpuinfo)"
	echo "cpu $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
	echo "memory $(awk '/^MemTotal:/ { print $2 * 1024 }' /proc/meminfo)"
elif [ "$(uname -s)" = Darwin ]; then
	echo "cpus $(sysctl -n hw.ncpu)"
	echo "cpu $(sysctl -n machdep.cpu.brand_string)"
	echo "memory $(sysctl -n hw.memsize)"
	[ "$(uname -m)" = arm64 ] && echo "metal $(sysctl -n machdep.cpu.brand_string)"
fi
echo "disk $(df -Pk . | awk 'NR == 2 { print $4 * 1024 }')"
if command -v nvidia-smi >/dev/null 2>&1; then
	nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits 2>/dev/null |
		while IFS= read -r line; do echo "cuda $line"; done
fi
if command -v rocm-smi >/dev/null 2>&1; then
	rocm-smi --showproductname --csv 2>/dev/null | sed -n 's/^card[0-9]*,/rocm /p'
fi
echo "end"
