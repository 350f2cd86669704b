#!/bin/bash
# A SLURM cluster of this one machine, for the length of a command: slurm.sh FOLDER COMMAND...
#
# Needs root, and Debian's slurmctld, slurmd, slurm-client and munge. FOLDER takes its files. Exit code 77: it cannot be
# started here, and the last line says why.
set -u
folder=$(realpath "$1")
shift
for program in slurmctld slurmd munged sbatch; do
    command -v $program > /dev/null || PATH=$PATH:/usr/sbin
    command -v $program > /dev/null || { echo "slurm.sh: no $program"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "slurm.sh: needs root"; exit 77; }
mkdir -p "$folder"/{state,spool}
host=$(hostname -s)
cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=36817
SlurmdPort=36818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
export SLURM_CONF=$folder/slurm.conf
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 2> /dev/null
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
    --log-file="$folder/munge.log" --seed-file="$folder/munge.seed" 2> "$folder/munge.err" ||
    { echo "slurm.sh: munged: $(tail -1 "$folder/munge.err")"; exit 77; }
stop() {
    for name in slurmd slurmctld munge; do
        [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2> /dev/null
    done
}
trap stop EXIT
slurmctld && slurmd || { echo "slurm.sh: $(tail -qn 1 "$folder"/slurm*.log)"; exit 77; }
for _ in $(seq 60); do
    [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && break
    sleep 0.5
done
[ "$(sinfo -h -o %T 2> /dev/null)" = idle ] || { echo "slurm.sh: $(tail -qn 1 "$folder"/slurm*.log)"; exit 77; }
"$@"
