# For /etc/profile.d: programs of those who log in tell the mirrors of this node what they change.
# Nothing is set where the library or the ring is not there; who has LD_PRELOAD set already keeps that too.
treeferry_lib=/usr/lib/treeferry/libtreeferry_shim.so
treeferry_ring=/run/treeferry/shim.ring
if [ -r "$treeferry_lib" ] && [ -w "$treeferry_ring" ]; then
    case ":${LD_PRELOAD:-}:" in
        *":$treeferry_lib:"*) ;;
        *) export LD_PRELOAD="$treeferry_lib${LD_PRELOAD:+:$LD_PRELOAD}" ;;
    esac
    export TREEFERRY_SHIM="$treeferry_ring"
fi
unset treeferry_lib treeferry_ring
