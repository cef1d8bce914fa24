// One process per subject or session:
//   bash ../slurm_array.sh --list DIR > tasks.txt
//   nextflow run main.nf --bids DIR --output DIR --tasks tasks.txt -profile apptainer
// -profile apptainer,gpu for a GPU; -profile apptainer,slurm for a cluster. Each line of the tasks is a subject, or a
// subject and a session (--list-sessions).
nextflow.enable.dsl = 2

params.bids = null
params.output = null
params.tasks = null
params.options = '--output-resolution 1.25'
params.device = 'cpu'

process BIDS_SR {
    tag { session ? "sub-${subject}_ses-${session}" : "sub-${subject}" }
    label 'process_gpu'
    // Files of different subjects never have the same name; what describes the whole dataset is the same from each.
    publishDir params.output, mode: 'copy'

    input:
    tuple val(subject), val(session), path(bids, stageAs: 'bids')

    output:
    path 'derivatives/**'

    script:
    def session_option = session ? "--session-label ${session}" : ''
    """
    bids_sr bids derivatives participant --participant-label ${subject} ${session_option} ${params.options} \\
        --device ${params.device} --nprocs ${task.cpus} --mem ${task.memory.toGiga()}G -w scratch --clean-workdir
    """
}

workflow {
    if (!params.bids || !params.output || !params.tasks) {
        error 'Give --bids DIR, --output DIR and --tasks FILE.'
    }
    bids = file(params.bids, checkIfExists: true)
    tasks = channel.fromPath(params.tasks, checkIfExists: true).splitText { it.trim() }.filter { it }
    BIDS_SR(tasks.map { line -> def words = line.split(' '); tuple(words[0], words.size() > 1 ? words[1] : '', bids) })
}
